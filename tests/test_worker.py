"""The queue and the worker: turns, places in the queue, how much may wait, and batches."""

import threading
import time
import weakref

import pytest
from conftest import tiny_pipeline
from fakes import FakeGenerator

from benchmarks.side_by_side import waits
from core.errors import UserError
from sampling.generator import Generator
from sampling.image import Picture
from sampling.request import Cancelled, Request
from webapp.job import Job, Queued
from webapp.queue import (
    MAX_COST_OF_REQUEST,
    MAX_JOBS_OF_CLIENT,
    MAX_SHARED_JOBS,
    MAX_WAITING_JOBS,
    Busy,
    Client,
    ClientBusy,
    FairQueue,
    cost_of,
)
from webapp.worker import MAX_BATCH, Worker

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


def queue_of(*clients: str) -> FairQueue:
    """Of jobs of clients "ax", x at the address a, and "b", the only one at b."""
    queue = FairQueue()
    for client in clients:
        queue.add(job_of(Client(client[0], client[1:])))
    return queue


def job_of(client: Client) -> Job:
    return Job([small("a job")], client, lambda job: None, FakeGenerator())


def named(job: Job | None) -> str | None:
    return "".join(job.client) if job else None


def drain(queue: FairQueue) -> str:
    return "".join(iter(lambda: named(queue.take()), None))


def places(job: Job) -> list[int]:
    """The places in the queue that the job was told of; then it is cancelled."""
    job._events.put(None)
    return [event.ahead for event in iter(job._events.get, None) if isinstance(event, Queued)]


# The queue


def test_clients_take_turns_whatever_the_order_in_which_they_came():
    assert drain(queue_of(*"aaaabbc")) == "abcabaa"


def test_the_queue_lists_jobs_in_the_order_in_which_it_hands_them_out():
    queue = queue_of(*"aaabbcab")
    queue.take()
    listed = "".join(map(named, queue))
    assert listed == drain(queue) and len(queue) == 0


def test_a_client_who_comes_back_at_once_does_not_overtake():
    queue = queue_of("a", "b", "c")
    order = ""
    for _ in range(9):
        job = queue.take()
        order += named(job)
        queue.add(job)
    assert order == "abc" * 3


def test_addresses_take_turns_and_at_each_its_clients():
    queue = queue_of("ax", "ax", "ax", "ay", "az", "b", "b", "c")
    listed = " ".join(map(named, queue))
    assert listed == "ax b c ay b az ax ax"
    assert " ".join(iter(lambda: named(queue.take()), None)) == listed


def test_who_makes_up_names_gets_no_more_turns_than_an_honest_neighbour():
    queue = queue_of(*(f"a{n}" for n in range(15)), "b", "b", "b")
    assert drain(queue)[:9] == "a0ba1ba2b"


def test_a_job_leaves_the_queue_once():
    queue = queue_of("a", "b")
    job = next(iter(queue))
    assert (queue.remove(job), queue.remove(job), drain(queue)) == (True, False, "b")


def test_an_empty_queue_has_no_next_job():
    assert FairQueue().take() is None


def test_cost_is_steps_times_pixels_times_pictures():
    assert cost_of([Request("a", num_images=2, steps=3, width=64, height=128)]) == 2 * 3 * 64 * 128
    assert cost_of([Request("a", steps=1)]) == 512 * 512
    assert cost_of([LARGEST]) == MAX_COST_OF_REQUEST


# How much may wait


def test_a_client_may_have_a_few_jobs_waiting_and_others_are_not_affected(worker, generator):
    for _ in range(MAX_JOBS_OF_CLIENT + 1):  # one of them is being drawn
        worker.submit([small("a")], Client("greedy"))
    with pytest.raises(Busy, match=r"Enough of your drawings are waiting already \(4\)"):
        worker.submit([small("a")], Client("greedy"))
    worker.submit([small("b")], Client("modest"))
    assert worker.counts["refused"] == 1 and worker.waiting == MAX_JOBS_OF_CLIENT + 1


def test_a_client_may_wait_with_one_of_the_largest_jobs_but_not_with_two(worker):
    worker.submit([small("first")])
    worker.submit([LARGEST], Client("a"))
    with pytest.raises(Busy):
        worker.submit([LARGEST], Client("a"))
    worker.submit([LARGEST], Client("b"))


def test_the_queue_is_full_by_number_and_by_cost(worker):
    worker.submit([small("first")])
    for client in "abcde":
        worker.submit([LARGEST], Client(client))
    with pytest.raises(Busy, match="5 drawings are waiting already"):
        worker.submit([small("f")], Client("f"))


def test_those_who_share_an_address_have_places_of_their_own():
    queue = queue_of(*(f"a{n}" for n in range(11)))  # and one more is being drawn
    for _ in range(MAX_JOBS_OF_CLIENT - 1):
        queue.add(job_of(Client("a", "3")))
    with pytest.raises(ClientBusy, match=r"Enough of your drawings are waiting already \(4\)"):
        queue.add(job_of(Client("a", "3")))


def test_made_up_names_never_take_the_last_places_from_other_addresses():
    queue = queue_of(*(f"a{n}" for n in range(MAX_SHARED_JOBS)))
    for name in ("new", "", "0"):
        with pytest.raises(Busy, match="20 drawings are waiting already"):
            queue.add(job_of(Client("a", name)))
    for address in "bc":
        for name in range(MAX_JOBS_OF_CLIENT):
            queue.add(job_of(Client(address, str(name))))
    assert len(queue) == MAX_WAITING_JOBS


def test_nor_do_large_jobs_of_made_up_names():
    queue = FairQueue()
    for name in "wxyz":
        queue.add(Job([LARGEST], Client("a", name), lambda job: None, FakeGenerator()))
    with pytest.raises(Busy, match="4 drawings are waiting already"):
        queue.add(job_of(Client("a", "new")))
    queue.add(Job([LARGEST], Client("b"), lambda job: None, FakeGenerator()))


def test_the_queue_is_full_by_number_whoever_waits(worker):
    for number in range(MAX_WAITING_JOBS + 1):
        worker.submit([small("x")], Client(f"client {number}"))
    with pytest.raises(Busy, match="28 drawings are waiting already"):
        worker.submit([small("x")], Client("one more"))


# Turns, in a worker


def test_a_client_with_fifty_jobs_delays_another_by_at_most_two(worker, generator):
    def submit_all():  # as fast as the cap allows
        submitted = 0
        while submitted < 50:
            try:
                worker.submit([small("greedy")], Client("greedy"))
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
            job = worker.submit([small(f"modest {number}")], Client("modest"))
        generator.release()
        assert isinstance(list(job)[-1], Picture)
        prompts = [request.prompt for request in generator.requests]
        # The one whose turn it was, and one more.
        assert prompts.index(f"modest {number}") - before <= 2
    thread.join(20)
    assert not thread.is_alive()


def test_places_in_the_queue_stay_true_when_others_come_and_go(worker):
    worker.submit([small("drawn")], Client("a"))
    mine = [worker.submit([small("a")], Client("a")) for _ in range(3)]
    other = worker.submit([small("b")], Client("b"))  # goes before a's second
    mine[0].cancel()
    assert places(mine[1]) == [2, 2, 3, 1]
    assert places(mine[2]) == [3, 4, 3]
    assert places(other) == [2, 2]


def test_a_cancelled_job_leaves_the_queue_at_once(worker, generator):
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


# Side by side


class Shared(Generator):
    """Draws side by side, as on a GPU; can be held, and counts how many share its steps."""

    def __init__(self):
        super().__init__(tiny_pipeline(), name="shared")
        self.draws_side_by_side = True
        self.go = threading.Event()
        self.together: list[int] = []
        self.enough = 99  # drawings for which memory suffices
        self.broken: object = None  # a drawing that cannot go on
        self.drawings: list[weakref.ref] = []  # of the step that is being taken
        self.left_behind: list[bool] = []  # at each step after an error, whether its frames live on
        self._allocated = None

    def step(self, drawings):
        self.drawings = [weakref.ref(drawing) for drawing in drawings]
        assert self.go.wait(30), "held for too long"
        self.together.append(len(drawings))
        if self._allocated:
            self.left_behind.append(self._allocated() is not None)
        if len(drawings) > self.enough or self.broken in drawings:
            allocated = threading.Event()
            self._allocated = weakref.ref(allocated)
            raise UserError("cuda ran out of memory.")
        super().step(drawings)


@pytest.fixture
def shared() -> Shared:
    return Shared()


def test_the_benchmark_of_drawing_side_by_side_waits_for_all_and_takes_both_ways(shared):
    shared.go.set()
    for batched in (False, True):
        waited = waits(shared, 3, batched)
        assert 0 < waited["mean"] <= waited["last"]
        assert set(shared.together) == {1} or batched
    assert max(shared.together) > 1


def pixels(job: Job) -> list[bytes]:
    return [event.image.tobytes() for event in job if isinstance(event, Picture)]


def wait_for(condition) -> bool:
    """Whether it comes true within half a minute."""
    end = time.monotonic() + 30
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.005)
    return bool(found)


def near(one: bytes, other: bytes) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) <= 1


def test_jobs_of_several_clients_share_their_steps_and_each_gets_its_own(shared):
    worker = Worker(shared)
    requests = [
        Request(f"a {words}", seed=seed, steps=6 + seed, scheduler=scheduler)
        for seed, (words, scheduler) in enumerate(
            [("cat", "DDIM"), ("dog", "Euler a"), ("cow", "UniPC")]
        )
    ]
    jobs = [worker.submit([request], Client(f"client {request.seed}")) for request in requests]
    shared.go.set()
    drawn = [pixels(job) for job in jobs]
    assert max(shared.together) == 3 and sum(shared.together) == 6 + 7 + 8
    for request, (picture,) in zip(requests, drawn, strict=True):
        (alone,) = Generator(tiny_pipeline(), name="alone").pictures([request])
        assert near(picture, alone.image.tobytes())


def test_pictures_of_other_sizes_take_their_steps_by_themselves(shared):
    worker = Worker(shared)
    sizes = [(32, 32), (64, 32), (32, 32)]
    jobs = [worker.submit([Request("a", steps=3, width=w, height=h)]) for w, h in sizes]
    shared.go.set()
    assert [len(pixels(job)) for job in jobs] == [1, 1, 1]
    assert set(shared.together) == {1, 2}


def test_no_more_is_drawn_side_by_side_than_there_is_room_for(shared):
    worker = Worker(shared)
    jobs = [worker.submit([Request("a", num_images=n, steps=2)]) for n in (4, 3, 2, 1)]
    assert worker.waiting == 2  # though the last would fit: it has to wait for its turn
    shared.go.set()
    assert [len(pixels(job)) for job in jobs] == [4, 3, 2, 1]
    assert max(shared.together) <= 3


def test_who_leaves_does_not_disturb_those_he_shared_steps_with(shared):
    worker = Worker(shared)
    gone, stays = (worker.submit([Request(words, steps=5)]) for words in ("gone", "stays"))
    gone.cancel()
    shared.go.set()
    with pytest.raises(Cancelled):
        list(gone)
    (alone,) = Generator(tiny_pipeline(), name="alone").pictures([Request("stays", steps=5)])
    assert near(*pixels(stays), alone.image.tobytes())


def test_where_memory_does_not_suffice_for_several_they_are_drawn_one_by_one(shared):
    shared.enough = 1
    worker = Worker(shared)
    jobs = [worker.submit([Request(words, steps=3)]) for words in "abcd"]
    shared.go.set()
    assert [len(pixels(job)) for job in jobs] == [1] * 4
    shared.enough = 0
    with pytest.raises(UserError, match="ran out of memory"):
        list(worker.submit([Request("e", steps=3)]))
    shared.enough = 1
    assert len(pixels(worker.submit([Request("f", steps=3)]))) == 1


def test_what_memory_did_not_suffice_for_is_forgotten_before_the_next_try(shared):
    shared.enough = 1
    worker = Worker(shared)
    jobs = [worker.submit([Request(words, steps=2)]) for words in "ab"]
    shared.go.set()
    assert [len(pixels(job)) for job in jobs] == [1, 1]
    # An error holds the frames that it came through, and they hold what was on the device.
    assert shared.left_behind and not any(shared.left_behind)


def test_one_that_fails_leaves_the_others_as_much_room_as_before(shared):
    worker = Worker(shared)
    first, other = (worker.submit([Request(words, steps=9)]) for words in "ab")
    assert wait_for(lambda: shared.drawings)
    shared.broken = shared.drawings[0]()  # of the first
    shared.go.set()
    with pytest.raises(UserError, match="ran out of memory"):
        list(first)
    assert len(pixels(other)) == 1
    assert wait_for(lambda: worker.counts["done"] == 1)
    shared.go.clear()
    jobs = [worker.submit([Request("c", steps=1)]) for _ in range(MAX_BATCH)]
    assert worker.waiting == 0
    shared.go.set()
    assert [len(pixels(job)) for job in jobs] == [1] * MAX_BATCH


def test_small_pictures_are_not_drawn_in_any_number_at_once(shared):
    shared.size = 512
    worker = Worker(shared)
    jobs = [worker.submit([Request("a", steps=2, width=32)]) for _ in range(MAX_BATCH + 1)]
    assert worker.waiting == 1
    for job in jobs[2:]:
        job.cancel()
    shared.go.set()
    assert [len(pixels(job)) for job in jobs[:2]] == [1, 1]


@pytest.mark.parametrize("ends", ["done", "cancelled", "failed"])
def test_a_job_that_is_over_keeps_nothing_of_the_model(shared, ends):
    worker = Worker(shared)
    job = worker.submit([Request("a", steps=3)])
    assert wait_for(lambda: shared.drawings)
    (drawing,) = shared.drawings
    if ends == "cancelled":
        job.cancel()
    if ends == "failed":
        shared.enough = 0
    shared.go.set()
    assert wait_for(lambda: job.outcome == ends and drawing() is None)


def test_a_client_with_many_jobs_side_by_side_delays_another_by_at_most_two(shared):
    worker, started = Worker(shared), []
    course = shared.denoising_events

    def noted(requests, *job, **more):
        started.append(requests[0].prompt)
        return course(requests, *job, **more)

    shared.denoising_events = noted
    greedy = [worker.submit([Request("greedy", steps=3)], Client("greedy")) for _ in range(8)]
    wait = [worker.submit([Request("greedy", steps=3)], Client("greedy")) for _ in range(4)]
    modest = worker.submit([Request("modest", steps=3)], Client("modest"))
    assert worker.waiting == 5
    shared.go.set()
    assert all(len(pixels(job)) == 1 for job in [modest, *greedy, *wait])
    assert started.index("modest") <= 8 + 1  # the eight were there before


def test_another_generator_draws_alone(shared, generator):
    worker = Worker(shared)
    first = worker.submit([Request("a", steps=3)])
    other = worker.submit([small("b")], generator=generator)
    assert worker.waiting == 1
    shared.go.set()
    assert len(pixels(first)) == 1
    last = worker.submit([Request("c", steps=3)])
    generator.release()
    assert len(pixels(other)) == 1 and len(pixels(last)) == 1


def test_a_job_that_is_over_keeps_nothing_of_what_it_was_asked_for():
    generator = FakeGenerator()
    worker = Worker(generator)
    generator.hold()
    first, waiting = (worker.submit([Request(words)]) for words in ("first", "second"))
    waiting.cancel()
    assert waiting.requests == ()
    generator.release()
    list(first)
    list(worker.submit([Request("third")]))  # so that the worker has gone on
    assert first.requests == ()


def eventually(holds) -> bool:
    """Whether it holds before long, however busy the machine."""
    patience = time.monotonic() + 60
    while not holds() and time.monotonic() < patience:
        time.sleep(0.01)
    return bool(holds())


def test_a_held_worker_begins_nothing_and_says_why(generator, worker):
    job = worker.submit([small("first")])
    assert eventually(lambda: generator.requests), "it is being drawn"
    assert not worker.hold(), "what is under way is drawn to its end"
    generator.release()
    assert [*job] and eventually(worker.hold)
    events = iter(worker.submit([small("second")]))
    assert next(events) == Queued(1, held=True)
    worker.let_go()
    assert [each.prompt for each in events if isinstance(each, Picture)] == ["second"]
