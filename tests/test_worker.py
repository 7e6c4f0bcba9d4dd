"""Who is drawn next: turns, places in line, and how much may wait."""

import threading

import pytest
from fakes import FakeGenerator

from generate import Cancelled, Picture, Request
from serving.line import LARGEST_COST, MAX_JOBS_OF_CLIENT, MAX_WAITING_JOBS, Busy, Line, cost_of
from serving.worker import Job, Waiting, Worker

LARGEST = Request("large", num_images=16, steps=150, width=1024, height=1024)


@pytest.fixture
def generator() -> FakeGenerator:
    generator = FakeGenerator()
    generator.hold()
    yield generator
    generator.release()


@pytest.fixture
def worker(generator) -> Worker:
    return Worker(generator)


def small(prompt: str) -> Request:
    return Request(prompt, steps=1)


def line_of(*clients: str) -> Line:
    line = Line()
    for client in clients:
        line.add(Job([small(client)], client, lambda job: None, FakeGenerator()))
    return line


def drain(line: Line) -> str:
    return "".join(iter(lambda: job.client if (job := line.take()) else None, None))


def places(job: Job) -> list[int]:
    """The places in line that the job was told of; then it is called off."""
    job._events.put(None)
    return [event.ahead for event in iter(job._events.get, None) if isinstance(event, Waiting)]


# The line


def test_clients_take_turns_whatever_the_order_in_which_they_came():
    assert drain(line_of(*"aaaabbc")) == "abcabaa"


def test_the_line_lists_jobs_in_the_order_in_which_it_hands_them_out():
    line = line_of(*"aaabbcab")
    line.take()
    listed = "".join(job.client for job in line)
    assert listed == drain(line) and len(line) == 0


def test_a_client_who_comes_back_at_once_does_not_overtake():
    line = line_of("a", "b", "c")
    order = ""
    for _ in range(9):
        job = line.take()
        order += job.client
        line.add(job)
    assert order == "abc" * 3


def test_a_job_leaves_the_line_once():
    line = line_of("a", "b")
    job = next(iter(line))
    assert (line.remove(job), line.remove(job), drain(line)) == (True, False, "b")


def test_an_empty_line_has_no_next_job():
    assert Line().take() is None


def test_cost_is_steps_times_pixels_times_pictures():
    assert cost_of([Request("a", num_images=2, steps=3, width=64, height=128)]) == 2 * 3 * 64 * 128
    assert cost_of([Request("a", steps=1)]) == 512 * 512
    assert cost_of([LARGEST]) == LARGEST_COST


# How much may wait


def test_a_client_may_have_a_few_jobs_waiting_and_others_are_not_affected(worker, generator):
    for _ in range(MAX_JOBS_OF_CLIENT + 1):  # one of them is being drawn
        worker.submit([small("a")], "greedy")
    with pytest.raises(Busy, match=r"Enough of your drawings are waiting already \(4\)"):
        worker.submit([small("a")], "greedy")
    worker.submit([small("b")], "modest")
    assert worker.counts["refused"] == 1 and worker.waiting == MAX_JOBS_OF_CLIENT + 1


def test_a_client_may_wait_with_one_of_the_largest_jobs_but_not_with_two(worker):
    worker.submit([small("first")])
    worker.submit([LARGEST], "a")
    with pytest.raises(Busy):
        worker.submit([LARGEST], "a")
    worker.submit([LARGEST], "b")


def test_the_line_is_full_by_number_and_by_cost(worker):
    worker.submit([small("first")])
    for client in "abcd":
        worker.submit([LARGEST], client)
    with pytest.raises(Busy, match="4 drawings are waiting already"):
        worker.submit([small("e")], "e")


def test_the_line_is_full_by_number_whoever_waits(worker):
    for number in range(MAX_WAITING_JOBS + 1):
        worker.submit([small("x")], f"client {number}")
    with pytest.raises(Busy, match="20 drawings are waiting already"):
        worker.submit([small("x")], "one more")


# Turns, in a worker


def test_a_client_with_fifty_jobs_delays_another_by_at_most_two(worker, generator):
    def submit_all():  # as fast as the cap allows
        submitted = 0
        while submitted < 50:
            try:
                worker.submit([small("greedy")], "greedy")
                submitted += 1
            except Busy:
                started.set()

    started = threading.Event()
    thread = threading.Thread(target=submit_all)
    thread.start()
    assert started.wait(10)  # one is drawn, four are waiting, the others push
    for number in range(5):
        with worker._changed:  # nothing is begun between the two
            before = len(generator.requests)
            job = worker.submit([small(f"modest {number}")], "modest")
        generator.release()
        assert isinstance(list(job)[-1], Picture)
        prompts = [request.prompt for request in generator.requests]
        # The one whose turn it was, and one more.
        assert prompts.index(f"modest {number}") - before <= 2
    thread.join(20)
    assert not thread.is_alive()


def test_places_in_line_stay_true_when_others_come_and_go(worker):
    worker.submit([small("drawn")], "a")
    mine = [worker.submit([small("a")], "a") for _ in range(3)]
    other = worker.submit([small("b")], "b")  # goes before a's second
    mine[0].cancel()
    assert places(mine[1]) == [2, 2, 3, 1]
    assert places(mine[2]) == [3, 4, 3]
    assert places(other) == [2, 2]


def test_a_cancelled_job_leaves_the_line_at_once(worker, generator):
    first = worker.submit([small("first")])
    waiting = worker.submit([small("waiting")])
    assert worker.waiting == 1
    waiting.cancel()
    waiting.cancel()
    assert worker.waiting == 0 and worker.counts["cancelled"] == 1
    with pytest.raises(Cancelled):
        list(waiting)
    generator.release()
    list(first)
    assert [request.prompt for request in generator.requests] == ["first"]


def test_what_became_of_jobs_is_counted(worker, generator, caplog):
    generator.release()
    list(worker.submit([Request("two", steps=1, num_images=2)]))
    generator.error = RuntimeError("broken")
    with pytest.raises(Exception, match="Drawing failed"):
        list(worker.submit([small("fails")]))
    generator.error = None
    list(worker.submit([small("last")]))  # when it is drawn, the others are counted
    assert worker.counts["failed"] == 1 and worker.counts["pictures"] >= 2
    assert worker.counts["done"] >= 1 and worker.drawing_seconds > 0
