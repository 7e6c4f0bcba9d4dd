"""Does the app stay up while it is attacked, and does it end when it is told to?

    python -m benchmarks.attacks

starts app.py, with no more than 1,024 open files, and lets one attack after the other of
benchmarks/attackers.py at it, while somebody else asks for /healthz twenty times a second. Then it
is ended by each signal, in the midst of whatever it can be doing. Results: two tables, and JSON
beside them. Ends with 1 and a sentence for each thing that is not met.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.attackers import ATTACKS
from benchmarks.load import some_port
from core.errors import UserError, exit_with_sentence
from core.paths import ROOT
from sampling.generator import DEFAULT_MODEL

OPEN_FILES = 1024
START_SECONDS, END_SECONDS = 300, 60  # that are waited
ANSWER_SECONDS, CLEAR_SECONDS = 0.2, 2  # what is to be met
OPENING = "half-open, while the model opens"
OPENING_SECONDS = 0.5  # likewise: opening keeps all processors busy by itself
PROBE_SECONDS, PATIENCE_SECONDS = 0.05, 10
LOG_BYTES = 100_000
PICTURE = {"prompt": "a cat", "steps": 150, "num_images": 16}


@dataclass(frozen=True)
class App:
    """A running app.py, all of whose files are in a folder; what it says is beside it."""

    process: psutil.Popen
    port: int
    folder: Path
    log: Path

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, words: str) -> None:
        end = time.monotonic() + START_SECONDS
        while words not in self.said():
            if self.process.poll() is not None or time.monotonic() > end:
                raise UserError(f"The app did not say {words!r}, but: {self.said()[-500:]}")
            time.sleep(0.02)

    def usage(self) -> dict[str, int]:
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return {
            "memory_bytes": self.process.memory_info().rss,
            "open_files": self.process.num_fds(),
            "temporary_bytes": sum(path.stat().st_size for path in files),
            "log_bytes": self.log.stat().st_size,
        }


@contextmanager
def running_app(model: str, *options: str, words: str = "is ready") -> Iterator[App]:
    """app.py, once it has said `words`."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, log = Path(temporary) / "its", Path(temporary) / "said"
        folder.mkdir()
        port = some_port()
        command = [sys.executable, "-u", "app.py", "--model", model, "--port", str(port), *options]
        with log.open("w") as said:
            process = psutil.Popen(
                command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, preexec_fn=few_files,
                env=os.environ | {"TMPDIR": str(folder)},
            )  # fmt: skip
        try:
            app = App(process, port, folder, log)
            app.wait_for(words)
            yield app
        finally:
            with suppress(psutil.NoSuchProcess):
                process.kill()
            process.wait()


def few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))


# The attacks


class Probe:
    """Asks for /healthz again and again, each time by a new connection, in a thread."""

    def __init__(self, port: int):
        self.port, self.seconds, self._over = port, [], threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(PROBE_SECONDS):
            self.seconds.append(answered_after(self.port))

    def spread(self) -> dict[str, float]:
        p50, p95 = np.percentile(self.seconds, [50, 95])
        missed = sum(map(math.isinf, self.seconds))
        return {"asked": len(self.seconds), "missed": missed, "p50": float(p50),
                "p95": float(p95), "max": max(self.seconds)}  # fmt: skip


def answered_after(port: int) -> float:
    """Seconds; infinity where there is no answer."""
    started = time.perf_counter()
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            connection.settimeout(PATIENCE_SECONDS)
            well = connection.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        well = False
    return time.perf_counter() - started if well else math.inf


@contextmanager
def attacker(name: str, port: int, seconds: float) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "benchmarks.attackers", "--attack", name]
    command += ["--port", str(port), "--seconds", str(seconds)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def attacked(app: App, name: str, seconds: float) -> dict:
    with attacker(name, app.port, seconds) as attack, Probe(app.port) as probe:
        attack.wait()
    return probe.spread() | app.usage()


def attacked_while_it_opens(model: str) -> dict:
    """Held up from its first moment on, the app still opens its model."""
    with running_app(model, words="The page is at") as app:
        with attacker("half-open", app.port, START_SECONDS), Probe(app.port) as probe:
            app.wait_for("is ready")
        return probe.spread() | app.usage()


# The ends


def draw(app: App) -> None:
    """Ask for pictures, and return once they are being drawn."""
    body = json.dumps(PICTURE).encode()
    head = f"POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    hang(app, f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
    before, end = app.process.cpu_times().user, time.monotonic() + END_SECONDS
    while app.process.cpu_times().user < before + 1 and time.monotonic() < end:
        time.sleep(0.02)


def hang(app: App, sent: bytes = b"GET / HTTP/1.1\r\n") -> None:
    HELD.append(socket.create_connection(("127.0.0.1", app.port)))
    HELD[-1].sendall(sent)


def do_nothing(_: App) -> None:
    """As it is."""


HELD: list[socket.socket] = []
LINK = ("--share", "--share_server", "127.0.0.1:9")  # where nobody is
ENDS: dict[str, tuple[str, tuple[str, ...], Callable[[App], None], tuple[str, ...]]] = {
    "nothing": ("is ready", (), do_nothing, ("SIGTERM",)),
    "opening the model": ("The page is at", (), do_nothing, ("SIGTERM",)),
    "drawing": ("is ready", (), draw, ("SIGTERM",)),
    "drawing, told by Ctrl-C": ("is ready", (), draw, ("SIGINT",)),
    "drawing, by a closed terminal": ("is ready", (), draw, ("SIGHUP",)),
    "drawing, told three times": ("is ready", (), draw, ("SIGTERM", "SIGTERM", "SIGHUP")),
    "waiting for a client": ("is ready", (), hang, ("SIGTERM",)),
    "opening a public link": ("Opening a public link", LINK, do_nothing, ("SIGTERM",)),
}


def ended(model: str, doing: str) -> dict:
    words, options, act, names = ENDS[doing]
    with running_app(model, *options, words=words) as app, ExitStack() as stack:
        stack.callback(lambda: [HELD.pop().close() for _ in HELD[:]])
        act(app)
        started = time.perf_counter()
        for name in names:
            app.process.send_signal(getattr(signal, name))
        code = app.process.wait(END_SECONDS)
        seconds = time.perf_counter() - started
        left = [str(path.relative_to(app.folder)) for path in app.folder.rglob("*")]
        # Of signals that wait together the system gives the lowest first.
        right = [128 + getattr(signal, name) for name in names]
        return {"code": code, "right_codes": right, "seconds": seconds, "left_behind": left}


# What is told


def measured(options: argparse.Namespace) -> dict:
    with running_app(options.model) as app:
        attacks = {name: attacked(app, name, options.seconds) for name in options.attacks}
        alive = app.process.poll() is None
        log = app.said()
    attacks[OPENING] = attacked_while_it_opens(options.model)
    ends = {doing: ended(options.model, doing) for doing in options.ends}
    results = {"attacks": attacks, "ends": ends, "alive": alive}
    return results | {"unmet": [*unmet(results, log)], "slow": [*slow(results)]}


def unmet(results: dict, log: str) -> Iterator[str]:
    """A sentence for each thing that is not as it should be, whatever the machine's speed."""
    if not results["alive"]:
        yield f"The app ended by itself, and said: {log[-500:]}"
    if "Traceback" in log:
        yield f"The app said: {log[log.index('Traceback') :][:500]}"
    for name, found in results["attacks"].items():
        if found["missed"]:
            yield f"{name}: {found['missed']} of {found['asked']} were not answered."
        if found["log_bytes"] > LOG_BYTES:
            yield f"{name}: the log has {found['log_bytes']:,} bytes."
        if found["open_files"] > OPEN_FILES * 0.75:
            yield f"{name}: {found['open_files']:,} files are open."
    for doing, found in results["ends"].items():
        if found["code"] not in found["right_codes"]:
            yield f"{doing}: ended with {found['code']}, not {found['right_codes'][0]}."
        if found["left_behind"]:
            yield f"{doing}: left {', '.join(found['left_behind'][:5])} behind."


def slow(results: dict) -> Iterator[str]:
    """A sentence for each number that is over its bar, on a machine that does nothing else."""
    for name, found in results["attacks"].items():
        if found["max"] > (OPENING_SECONDS if name == OPENING else ANSWER_SECONDS):
            yield f"{name}: an answer took {found['max'] * 1000:.0f} ms."
    for doing, found in results["ends"].items():
        if found["seconds"] > CLEAR_SECONDS:
            yield f"{doing}: ended after {found['seconds']:.1f} s."


def show(results: dict) -> None:
    print("| attack | asked | p50, ms | p95 | max | memory, MiB | open files | log, kB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, each in results["attacks"].items():
        times = " | ".join(f"{1000 * each[key]:.0f}" for key in ("p50", "p95", "max"))
        used = f"{each['memory_bytes'] / 2**20:.0f} | {each['open_files']}"
        print(f"| {name} | {each['asked']} | {times} | {used} | {each['log_bytes'] / 1000:.1f} |")
    print("\n| ended while | code | s |\n| --- | --- | --- |")
    for doing, each in results["ends"].items():
        print(f"| {doing} | {each['code']} | {each['seconds']:.2f} |")


def main() -> None:
    options = parse()
    results = measured(options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n")
    show(results)
    if failed := results["unmet"] + results["slow"]:
        sys.exit("\n".join(["Not met:", *failed]))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="folder, file or hub id (the bundled one)")
    add("--seconds", type=float, default=10, help="of each attack (%(default)s)")
    add("--attacks", nargs="*", choices=ATTACKS, default=[*ATTACKS], help="(all)")
    add("--ends", nargs="*", choices=ENDS, default=[*ENDS], help="(all)")
    add("--output", type=Path, default=Path("outputs/attacks.json"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    exit_with_sentence(main)
