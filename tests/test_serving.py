"""serving/: the worker and its jobs, the share link."""

import threading
import time

import pytest
from fakes import FakeGenerator

from errors import UserError
from generate import Cancelled, Picture, Request
from serving.line import MAX_WAITING_JOBS
from serving.share import THREAD_NAME, open_share_link
from serving.worker import Step, Unread, Worker


@pytest.fixture
def generator() -> FakeGenerator:
    return FakeGenerator()


@pytest.fixture
def worker(generator) -> Worker:
    return Worker(generator)


def request(prompt: str = "a cat", **options) -> Request:
    return Request(prompt, **{"steps": 5, **options})


def until(condition, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


# The worker


def test_a_job_tells_its_steps_and_then_its_pictures(worker):
    events = list(worker.submit([request(num_images=2)]))
    pictures = [event for event in events if isinstance(event, Picture)]
    assert events[-2:] == pictures and [p.seed for p in pictures] == [0, 1]
    steps = [event.done for event in events if isinstance(event, Step)]
    assert steps == sorted(steps)


def test_a_slow_follower_sees_the_latest_step_and_misses_no_picture(worker, generator):
    job = worker.submit([request(steps=100, num_images=3)])
    until(lambda: len(generator.steps) == 100)
    until(lambda: worker.counts["done"])
    assert [type(event) for event in job] == [Picture] * 3


def test_two_jobs_never_draw_at_the_same_time(worker, generator):
    jobs = [worker.submit([request(str(n))]) for n in range(4)]
    for job in jobs:
        list(job)
    assert generator.steps == [1, 2, 3, 4, 5] * 4  # mixed jobs would mix their steps
    assert [r.prompt for r in generator.requests] == ["0", "1", "2", "3"]


def test_a_waiting_job_knows_how_many_are_before_it(worker, generator):
    generator.hold()
    first = worker.submit([request()])
    until(lambda: generator.requests)
    waiting = [worker.submit([request()]) for _ in range(2)]
    followed = [iter(job) for job in waiting]
    assert [next(events).ahead for events in followed] == [1, 2]
    generator.release()
    list(first)


def test_cancel_stops_within_one_step_and_frees_the_worker(worker, generator):
    generator.hold()
    job = worker.submit([request(steps=100)])
    until(lambda: generator.requests)
    job.cancel()
    with pytest.raises(Cancelled):  # at once, though the generator is still inside its step
        list(job)
    generator.release()
    assert isinstance(list(worker.submit([request("next")]))[-1], Picture)
    assert generator.steps == [1, 1, 2, 3, 4, 5]


def test_a_follower_who_leaves_cancels_the_job(worker, generator):
    generator.hold()
    following = iter(worker.submit([request(steps=100)]))
    next(following)
    following.close()
    generator.release()
    list(worker.submit([request("next")]))
    assert len(generator.steps) <= 1 + 5


def test_a_job_cancelled_while_it_waits_is_never_drawn(worker, generator):
    generator.hold()
    first = worker.submit([request("first")])
    second = worker.submit([request("second")])
    second.cancel()
    generator.release()
    list(first)
    list(worker.submit([request("third")]))
    assert [r.prompt for r in generator.requests] == ["first", "third"]


def test_a_failure_is_a_sentence_and_the_next_job_draws(worker, generator, caplog):
    generator.error = RuntimeError("CUDA went away")
    with pytest.raises(UserError, match="Drawing failed") as failure:
        list(worker.submit([request()]))
    assert "CUDA" not in str(failure.value) and "CUDA went away" in caplog.text
    generator.error = None
    assert isinstance(list(worker.submit([request()]))[-1], Picture)


def test_unread_words_are_told_before_the_pictures(worker):
    events = list(worker.submit([request("a" * 100 + "the end")]))
    assert events.index(Unread("the end")) < len(events) - 1


def test_when_too_many_wait_the_next_is_turned_away(worker, generator):
    generator.hold()
    jobs = [worker.submit([request()]) for _ in range(MAX_WAITING_JOBS + 1)]
    with pytest.raises(UserError, match="waiting already"):
        worker.submit([request()])
    for job in jobs:
        job.cancel()
    generator.release()


# The share link: gradio's own tunnel code with a tunnel program of ours


@pytest.fixture
def tunnel_program(tmp_path, monkeypatch):
    """Make gradio run a shell script as its tunnel program; nothing leaves the machine."""
    import gradio.networking
    import gradio.tunneling

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gradio.networking, "GRADIO_SHARE_SERVER_ADDRESS", "127.0.0.1:9")
    monkeypatch.setattr(gradio.tunneling, "CURRENT_TUNNELS", [])

    def write(script: str) -> None:
        program = tmp_path / "frpc"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(gradio.tunneling, "BINARY_PATH", str(program))

    yield write
    for tunnel in gradio.tunneling.CURRENT_TUNNELS:
        tunnel.kill()


def tunnels_have_ended() -> bool:
    from gradio.tunneling import CURRENT_TUNNELS

    threads = [thread.name for thread in threading.enumerate()]
    return THREAD_NAME not in threads and all(tunnel.proc is None for tunnel in CURRENT_TUNNELS)


def test_a_tunnel_that_opens_gives_its_link(tunnel_program):
    tunnel_program("echo 'start proxy success: http://abc.gradio.live'; exec sleep 60")
    sentence = open_share_link(7860, "token", timeout_seconds=20)
    assert sentence == "Public link, for up to a week: https://abc.gradio.live"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exec sleep 60", "no answer within 1 s"),
        ("exit 3", "the tunnel program stopped"),
        ("echo login to server failed; exec sleep 60", "could not create share URL"),
    ],
)
def test_a_tunnel_that_fails_is_one_sentence_and_leaves_nothing_running(
    tunnel_program, script, reason
):
    tunnel_program(script)
    started = time.monotonic()
    sentence = open_share_link(7860, "token", timeout_seconds=1)
    assert time.monotonic() - started < 8
    assert sentence.startswith(f"No public link: {reason}") and "--host 0.0.0.0" in sentence
    assert "\n" not in sentence
    until(tunnels_have_ended)


def test_without_a_network_the_share_link_is_one_sentence(monkeypatch, tmp_path):
    import gradio.networking
    import httpx

    def unreachable(*_, **__):
        raise httpx.ConnectError("Name or service not known")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gradio.networking.httpx, "get", unreachable)
    sentence = open_share_link(7860, "token", timeout_seconds=5)
    assert sentence.startswith("No public link: could not get share link") and "\n" not in sentence
