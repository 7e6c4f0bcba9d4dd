"""Does the app stand a crowd, and stay small over a thousand drawings?

    python -m benchmarks.load

starts the app over a generator that sleeps 50 ms a step. First 100 mixed clients for 5 minutes:
programs and pages, some of which hang up, cancel, close or send nonsense. Each checks that it gets
its own pictures, and the server that nobody is admitted or refused against the rules of the line.
Then 1,000 drawings one after another, after which memory, open files and temporary files are looked
at. Results: a table, and JSON beside it. Ends with 1 and a sentence for each thing that is not met.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil

from benchmarks import load_clients as clients
from core.errors import UserError, exit_with_sentence
from core.paths import ROOT
from webapp.limits import MAX_KEPT_BYTES
from webapp.queue import MAX_SHARED_JOBS

CROWD = {  # kinds of clients, and the share of each
    clients.Program: 0.3,
    clients.HangingUp: 0.15,
    clients.Nonsense: 0.1,
    clients.Visitor: 0.25,
    clients.Cancelling: 0.1,
    clients.Closing: 0.1,
}
WARM_UP = 0.2  # of the drawings, before memory is looked at first
START_SECONDS = 60
CALM_SECONDS = 30  # within which those who left are noticed
JOIN_SECONDS, GROWTH = 0.25, 0.01  # what is to be met
SPARE_HANDLES, SPARE_BYTES = 5, 2_000
FEW_BYTES = 10_000  # about 20 of the generator's pictures, so that room has to be made
MAX_TOLD = 20  # of what is not met


@dataclass(frozen=True)
class Server:
    """A running server of load_server.py."""

    url: str
    process: psutil.Process
    folder: Path  # all of its temporary files; its words are in server.log

    def books(self) -> dict:
        return httpx.get(f"{self.url}/books", timeout=START_SECONDS).json()

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.url}/metrics", timeout=START_SECONDS).text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(name))

    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    def usage(self) -> dict[str, int]:
        temporary = [p for p in self.folder.rglob("*") if p.name != "server.log" and p.is_file()]
        return {
            "memory_bytes": self.process.memory_info().rss,
            "handles": self.process.num_fds(),
            "temporary_files": len(temporary),
            "temporary_bytes": sum(_bytes(path) for path in temporary),
        }


@contextmanager
def running_server(step_seconds: float, most_bytes: int) -> Iterator[Server]:
    """A new server, whose temporary files are in a folder of its own."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, port = Path(temporary), some_port()
        environment = os.environ | {"TMPDIR": temporary, "GRADIO_TEMP_DIR": f"{folder / 'gradio'}"}
        command = [sys.executable, "-m", "benchmarks.load_server"]
        command += ["--port", str(port), "--step_seconds", str(step_seconds)]
        command += ["--most_bytes", str(most_bytes)]
        with open(folder / "server.log", "w") as log:
            started = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        try:
            server = Server(f"http://127.0.0.1:{port}", psutil.Process(started.pid), folder)
            wait_until_ready(server)
            yield server
        finally:
            started.kill()
            started.wait()


def some_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_ready(server: Server) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.process.status() != psutil.STATUS_ZOMBIE:
        try:
            if httpx.get(f"{server.url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise UserError(f"The server did not start. It said: {server.log()[-500:] or 'nothing'}")


async def crowd(url: str, count: int, seconds: float) -> clients.Seen:
    """So many mixed clients for so long, each of which finishes what it has begun."""
    seen, end, everybody = clients.Seen(), time.monotonic() + seconds, []
    for kind, share in CROWD.items():
        for _ in range(max(1, round(share * count))):
            everybody.append(kind(url, len(everybody), seen))
    await asyncio.gather(*(client.run(end) for client in everybody))
    return seen


def books_after(server: Server) -> dict:
    """What the server itself has seen, once it is calm."""
    end = time.monotonic() + CALM_SECONDS
    while (busy := _is_busy(server)) and time.monotonic() < end:
        time.sleep(0.1)
    ends = {
        name: server.metric(f'drawing_jobs_total{{outcome="{name}"}}')
        for name in ("done", "failed", "cancelled", "refused")
    }
    return server.books() | {"ends": ends, "busy": busy}


async def one_after_another(server: Server, count: int) -> tuple[clients.Seen, list[dict]]:
    """Drawings by program and page in turn; what the server uses after warm-up and at the end."""
    seen, used, warm_up = clients.Seen(), [], round(WARM_UP * count)
    program = clients.Program(server.url, 0, seen)
    visitor = clients.Visitor(server.url, 1, seen)
    visitor.drawings_of_visit = 1  # so that gradio soon remembers as many visitors as it may
    for number in range(1, count + 1):
        await (visitor if number % 2 else program).act()
        if number in (warm_up, count):
            visitor.drawings_of_visit = clients.Visitor.drawings_of_visit  # as usual
            used.append({"drawings": number} | server.usage())
    await asyncio.gather(program.close(), visitor.close())
    return seen, used


def _is_busy(server: Server) -> bool:
    return bool(server.books()["inside"] or server.metric("drawing_jobs_waiting"))


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def spread(seconds: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(seconds, [50, 95])
    return {"times": len(seconds), "p50": p50, "p95": p95, "max": max(seconds)}


def unmet(seen: clients.Seen, books: dict, used: list[dict], log: str) -> Iterator[str]:
    """A sentence for each thing that is not as it should be, whatever the machine's speed."""
    yield from seen.wrong
    yield from books["wrong"]
    if books["most_inside"] != 1:
        yield f"{books['most_inside']} calls were inside at once."
    if books["most_waiting"] > MAX_SHARED_JOBS:
        yield f"{books['most_waiting']} jobs waited at once."
    if books["busy"]:
        yield f"{CALM_SECONDS} s after all had gone the server was still drawing."
    if books["ends"]["failed"]:
        yield f"{books['ends']['failed']:.0f} jobs failed."
    refused, told = books["outcomes"].get("refused", 0), seen.counts["refused"]
    if not told <= refused <= told + seen.counts["left"]:
        yield f"{refused} jobs were refused, and {told} clients were told so."
    if "Traceback" in log:
        yield f"The server said: {log[log.index('Traceback') :][:500]}"
    before, after = used
    if after["handles"] > before["handles"] + SPARE_HANDLES:
        yield f"Open files grew from {before['handles']:,} to {after['handles']:,}."
    if after["temporary_bytes"] > FEW_BYTES + SPARE_BYTES:
        yield f"{after['temporary_bytes']:,} bytes are in the temporary folder."


def too_slow_or_large(waited: dict[str, dict], used: list[dict]) -> Iterator[str]:
    """A sentence for each number that is over its bar, on a machine that does nothing else."""
    for what, spread in waited.items():
        if spread["p95"] >= JOIN_SECONDS:
            yield f"{what}: p95 is {spread['p95'] * 1000:.0f} ms, not under {JOIN_SECONDS} s."
    before, after = (each["memory_bytes"] for each in used)
    if after >= before * (1 + GROWTH):
        yield f"Memory grew by {after / before - 1:.1%}, not under {GROWTH:.0%}."


def measured(options: argparse.Namespace) -> dict:
    """Everything, each part with a server of its own."""
    with running_server(options.step_seconds, MAX_KEPT_BYTES) as server:
        seen = asyncio.run(crowd(server.url, options.clients, options.seconds))
        used_cpu = sum(server.process.cpu_times()[:2])
        books, log = books_after(server), server.log()
    with running_server(step_seconds=0, most_bytes=FEW_BYTES) as server:
        later, used = asyncio.run(one_after_another(server, options.generations))
        log += server.log()
    seen.wrong += later.wrong
    waited = {what: spread(seconds) for what, seconds in sorted(seen.seconds.items())}
    return {
        "clients": options.clients,
        "seconds": options.seconds,
        "step_seconds": options.step_seconds,
        "answers": seen.counts,
        "cores_used": used_cpu / options.seconds,
        "server": books,
        "waited_seconds": waited,
        "used": used,
        "unmet": [*unmet(seen, books, used, log)],
        "slow_or_large": [*too_slow_or_large(waited, used)],
    }


def show(results: dict) -> None:
    print("| waited for, ms | times | p50 | p95 | max |\n| --- | --- | --- | --- | --- |")
    for what, each in results["waited_seconds"].items():
        p50, p95, most = (1000 * each[name] for name in ("p50", "p95", "max"))
        print(f"| {what} | {each['times']:,} | {p50:.0f} | {p95:.0f} | {most:.0f} |")
    print("\n| after drawings | memory | open files | temporary files | bytes of them |")
    print("| --- | --- | --- | --- | --- |")
    for each in results["used"]:
        memory = f"{each['memory_bytes'] / 2**20:.1f} MiB"
        files = f"{each['temporary_files']:,} | {each['temporary_bytes']:,}"
        print(f"| {each['drawings']:,} | {memory} | {each['handles']} | {files} |")
    answers = ", ".join(f"{number:,} {what}" for what, number in results["answers"].items())
    print(f"\nThe crowd's answers: {answers}. Most inside: {results['server']['most_inside']}.")
    print(f"The server was busy on {results['cores_used']:.2f} cores.")


def main() -> None:
    options = parse()
    results = measured(options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n")
    show(results)
    if failed := results["unmet"] + results["slow_or_large"]:
        sys.exit("\n".join(["Not met:", *failed[:MAX_TOLD]]))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--clients", type=int, default=100, help="at once (%(default)s)")
    add("--seconds", type=float, default=300, help="that they stay (%(default)s)")
    add("--step_seconds", type=float, default=0.05, help="of the generator (%(default)s)")
    add("--generations", type=int, default=1000, help="one after another (%(default)s)")
    add("--output", type=Path, default=Path("outputs/load.json"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    exit_with_sentence(main)
