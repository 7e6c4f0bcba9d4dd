"""The app stays up while it is attacked, and small: what holds however busy the machine is.

How soon it answers, and how soon it ends, `python -m benchmarks.attacks` measures.
"""

import asyncio
import gc
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
from fakes import FakeGenerator
from ports import some_port
from test_rest_api import until, worker_of

import app
from benchmarks import attackers, attacks
from webapp import limits

PATIENCE_SECONDS = 60
ATTACKED_SECONDS = 0.5
# What others wait for while the event loop is busy, of the processor's time, and not of a clock,
# which other programs' work would count in: so many times what a fixed work takes here.
MAX_WORK = 40
TURN_SECONDS = 0.005


@pytest.fixture(scope="module")
def demo():
    demo = app.build_app(FakeGenerator())
    app.serve(demo, "127.0.0.1", some_port())
    gc.collect()
    gc.freeze()  # as the command does
    yield demo
    gc.unfreeze()
    demo.close(verbose=False)


def fixed_work() -> float:
    """Seconds of the processor that a million additions take, at best."""

    def once() -> float:
        before, total = time.thread_time(), 0
        for number in range(200_000):
            total += number
        return time.thread_time() - before

    return min(once() for _ in range(5))


class Turns:
    """The longest that an event loop worked before it looked at anybody else."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop, self._over, self.longest = loop, False, 0.0

    def __enter__(self) -> "Turns":
        self._watching = asyncio.run_coroutine_threadsafe(self._watch(), self._loop)
        return self

    def __exit__(self, *_) -> None:
        self._over = True
        self._watching.result(PATIENCE_SECONDS)

    async def _watch(self) -> None:
        while not self._over:
            before = time.thread_time()
            await asyncio.sleep(TURN_SECONDS)
            self.longest = max(self.longest, time.thread_time() - before)


@contextmanager
def asking(port: int):
    """The statuses of /healthz, asked for again and again."""
    statuses, over = [], threading.Event()

    def ask() -> None:
        while not over.wait(0.02):
            answer = httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE_SECONDS)
            statuses.append(answer.status_code)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield statuses
    finally:
        over.set()
        thread.join(PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def most_files():
    attackers.allow_many_files()


@pytest.mark.parametrize("name", attackers.ATTACKS)
def test_everybody_is_answered_whatever_strangers_do(demo, name, most_files, capfd, monkeypatch):
    monkeypatch.setattr(limits, "LISTEN_SECONDS", 0.2)
    server, port = demo.server, demo.server_port
    with asking(port) as statuses, Turns(server.servers[0].get_loop()) as turns:
        attackers.ATTACKS[name](port, time.monotonic() + ATTACKED_SECONDS)
        asked = len(statuses)
        until(lambda: len(statuses) > asked + 1, PATIENCE_SECONDS)
    assert set(statuses) == {200}
    assert turns.longest < MAX_WORK * fixed_work()
    said = "".join(capfd.readouterr())
    assert "Traceback" not in said and len(said.splitlines()) <= 3 * limits.LOG_LINES
    worker = worker_of(demo)
    until(lambda: not worker._active and not worker.waiting, PATIENCE_SECONDS)
    kept = sum(len(upload.content) for upload in demo.uploads._kept.values())
    assert kept <= limits.MAX_UPLOADS_OF_PEER * limits.MAX_UPLOADED


def test_a_loop_that_works_for_long_is_noticed(demo):
    loop = demo.server.servers[0].get_loop()
    with Turns(loop) as turns:
        work = MAX_WORK * fixed_work()

        def long() -> None:
            end = time.thread_time() + work
            while time.thread_time() < end:
                pass

        loop.call_soon_threadsafe(long)
        until(lambda: turns.longest >= work, PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def results(tiny_model) -> dict:
    options = ["--model", tiny_model, "--seconds", "1", "--attacks", "half-open", "nonsense"]
    return attacks.measured(attacks.parse([*options, "--ends"]))


@pytest.mark.slow
def test_the_command_stays_up_with_few_files_and_ends_clean(results):
    assert results["unmet"] == [], results
    assert set(results["attacks"]) == {"half-open", "nonsense", "half-open, while the model opens"}
    assert all(each["asked"] for each in results["attacks"].values())


@pytest.mark.slow
def test_what_is_not_met_is_a_sentence(results):
    one = next(iter(results["attacks"].values()))
    bad = one | {"missed": 3, "log_bytes": 10**7, "open_files": 1000, "max": 3.0}
    end = {"code": -6, "right_codes": [143], "seconds": 9.0, "left_behind": ["a"]}
    worse = {"alive": False, "attacks": {"x": bad}, "ends": {"y": end}}
    sentences = [*attacks.unmet(worse, "Traceback (most"), *attacks.slow(worse)]
    assert len(sentences) == 9 and all(each.endswith((".", "most")) for each in sentences)
