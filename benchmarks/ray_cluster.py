"""A Ray cluster on this machine for benchmarks and tests: a head, and nodes that can be killed.

Each node has an address of its own in this machine's loopback network. The head keeps what it knows
in a folder, so that another one that is started in its place goes on with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import randbelow, token_hex

import httpx
import psutil

from benchmarks.load import some_port
from core.errors import UserError
from core.paths import ROOT

TOKEN, NODE = "RAY_AUTH_TOKEN", "NODE_OF_BENCHMARK"
START_SECONDS = 420
STORE_BYTES = 80 * 2**20  # of objects, on each node
ENVIRONMENT = {
    "PYTHONPATH": f"{ROOT}",
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_storage": "rocksdb",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "no_proxy": "*",
}
APP, PROXY, PAGE, DRAWER = (
    "default", "ray::ProxyActor", "ray::ServeReplica:default:Page",
    "ray::ServeReplica:default:Drawer",
)  # fmt: skip


@dataclass
class LocalCluster:
    """Processes of `ray start`, the head's first."""

    folder: Path
    port: int = field(default_factory=some_port)  # of the head
    http_port: int = field(default_factory=some_port)  # of the proxies, one on each node that draws
    network: str = field(default_factory=lambda: f"127.{randbelow(255)}.{1 + randbelow(254)}")
    token: str = field(default_factory=lambda: token_hex(32))
    nodes: list[psutil.Popen] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{self.network}.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def environment(self) -> dict[str, str]:
        own = {"RAY_gcs_storage_path": f"{self.folder / 'head'}", TOKEN: self.token}
        # Of all nodes but the head, which a load balancer leaves out.
        own["RAY_SERVE_WORKER_PROXY_HTTP_PORT"] = str(self.http_port)
        return os.environ | ENVIRONMENT | own

    def start_head(self) -> None:
        """The head leads the cluster, and neither draws nor passes requests on."""
        options = ["--head", "--port", str(self.port), "--num-cpus", "0"]
        options += ["--include-dashboard", "false", "--temp-dir", f"{self.folder / 'ray'}"]
        options += ["--ray-client-server-port", str(some_port())]
        self.nodes[:1] = [self._started(0, options)]

    def start_node(self, cpus: int) -> None:
        options = ["--address", self.address, "--num-cpus", str(cpus)]
        self.nodes.append(self._started(len(self.nodes), options))

    def _started(self, number: int, options: list[str]) -> psutil.Popen:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *options]
        # Ray takes 127.0.0.1 for the name of this machine, and asks for its address elsewhere.
        command += ["--node-ip-address", f"{self.network}.{1 + number}", "--disable-usage-stats"]
        command += ["--dashboard-agent-listen-port", str(some_port())]
        command += ["--object-store-memory", str(STORE_BYTES)]
        said = self.folder / f"node-{number}.log"
        with open(said, "w") as log:
            process = psutil.Popen(
                command, env=self.environment | {NODE: str(number)}, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

        def has_started() -> bool:
            if process.poll() is not None:
                raise UserError(f"Node {number} did not start. {said.read_text()[-1000:]}")
            return "Ray runtime started" in said.read_text()

        self.until(has_started, f"node {number} starts")
        return process

    def python(self, code: str, *words: str) -> str:
        """What a program prints that knows the cluster's address as `sys.argv[1]`."""
        done = subprocess.run(
            [sys.executable, "-c", code, self.address, *words], env=self.environment, text=True,
            capture_output=True, cwd=ROOT, timeout=START_SECONDS,
        )  # fmt: skip
        if done.returncode:
            raise UserError(f"The cluster did not do it: {done.stderr[-2000:]}")
        return done.stdout

    def serve(self, application: str, **settings: object) -> None:
        """Serve `module:builder`, and wait until it draws. What leads it survives this process."""
        self.python(SERVE, application, json.dumps(settings), str(some_port()))
        self.until(self.is_ready, "the page is ready")

    def is_ready(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        return False

    def processes(self, title: str = "", node: int | None = None) -> list[psutil.Process]:
        """Living processes whose title begins so, of all nodes or of one. They are known by what
        they inherited: the parents of some are dead."""
        marks = {TOKEN: self.token} | ({} if node is None else {NODE: str(node)})
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, IndexError):
                is_named = process.cmdline()[0].startswith(title)
                if is_named and marks.items() <= process.environ().items():
                    found.append(process)
        return found

    def kill(self, title: str = "", node: int | None = None, count: int | None = None) -> int:
        """End so many of them, all if None, at once and without a word (SIGKILL)."""
        victims = self.processes(title, node)[:count]
        for process in victims:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return len(victims)

    def kill_head(self) -> None:
        """The head with all that runs on its machine."""
        self.kill(node=0)
        self.nodes[0].wait(START_SECONDS)
        # Ray's note that a head runs here, where a new machine would have none.
        (self.folder / "ray" / "ray_current_cluster").unlink(missing_ok=True)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + START_SECONDS
        while not condition():
            if time.monotonic() > end:
                said = "".join(log.read_text()[-1000:] for log in self.folder.glob("*.log"))
                raise UserError(f"Not within {START_SECONDS} s: {what}. {said}")
            time.sleep(0.1)


SERVE = """
import importlib, json, sys
import ray
from ray import serve

address, application, settings, port = sys.argv[1:]
module, _, name = application.partition(":")
ray.init(address=address, namespace="serve", log_to_driver=False)
serve.start(proxy_location="EveryNode", http_options={"host": "127.0.0.1", "port": int(port)})
builder = getattr(importlib.import_module(module), name)
from deploy.cluster.page import Cluster
serve.run(builder(Cluster(**json.loads(settings))), name="default")
"""


@contextmanager
def local_cluster(nodes: int = 1, cpus: int = 8) -> Iterator[LocalCluster]:
    """A head and so many nodes; `cpus` is what each says it has, whatever the machine has."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        cluster = LocalCluster(Path(folder))
        try:
            cluster.start_head()
            for _ in range(nodes):
                cluster.start_node(cpus)
            yield cluster
        finally:
            cluster.kill()
