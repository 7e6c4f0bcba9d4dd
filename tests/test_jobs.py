"""webapp/: the worker and its jobs."""

import time

import pytest
from fakes import FakeGenerator

from core.errors import UserError
from sampling.image import Picture
from sampling.model_info import read_card
from sampling.request import Cancelled, Request
from webapp.job import PromptTruncated, Step
from webapp.queue import MAX_WAITING_JOBS
from webapp.worker import Worker


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


def test_unread_words_are_reported_before_the_pictures(worker):
    events = list(worker.submit([request("a" * 100 + "the end")]))
    assert events.index(PromptTruncated("the end")) < len(events) - 1


def test_when_too_many_wait_the_next_is_turned_away(worker, generator):
    generator.hold()
    jobs = [worker.submit([request()]) for _ in range(MAX_WAITING_JOBS + 1)]
    with pytest.raises(UserError, match="waiting already"):
        worker.submit([request()])
    for job in jobs:
        job.cancel()
    generator.release()


def test_a_models_card_is_read_without_what_only_the_hub_needs(tmp_path):
    text = "---\nlicense: x\n---\n# Mine\n\n![a](b.png)\n\nwords\n<!-- written -->\n"
    (tmp_path / "README.md").write_text(text)
    assert read_card(str(tmp_path)) == "# Mine\n\n\n\nwords"
    assert read_card(str(tmp_path / "none")) == ""


def test_a_job_that_nobody_came_to_follow_is_called_off(worker, generator):
    generator.hold()
    first = worker.submit([request("first")])
    until(lambda: generator.requests)
    with worker.submit([request("left")]):
        pass
    generator.release()
    list(first)
    list(worker.submit([request("next")]))
    assert [r.prompt for r in generator.requests] == ["first", "next"]


@pytest.mark.parametrize("side", [129, 130, 135])
def test_the_multiple_that_is_advised_is_one_and_near(side):
    with pytest.raises(UserError, match=f"width is {side}. Give a multiple of 8, such as 128"):
        Request("a cat", width=side)
