"""What a page draws by in a cluster, without one: replicas that are called here, and that die."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from fakes import FakeGenerator

from core.errors import UserError
from deploy.cluster.drawer import Drawer
from deploy.cluster.remote_generator import LOST, MAX_TRIES, RemoteGenerator
from sampling.image import Picture
from sampling.request import Cancelled, Request
from webapp.job import Step
from webapp.worker import Worker


class Died(Exception):
    """As Ray says it of a replica."""


class LocalStream:
    """The events of a replica in this process, as Ray brings them: by a loop of its own."""

    def __init__(self, drawer: Drawer, arguments: tuple, dies_after: int | None = None):
        self._events = drawer.draw(*arguments)
        self._loop = asyncio.new_event_loop()
        self._dies_after, self._next = dies_after, self._loop.create_future()

    def __iter__(self) -> Iterator[object]:
        heard = 0
        try:
            while heard != self._dies_after:
                self._next = self._loop.create_task(anext(self._events))
                yield self._loop.run_until_complete(self._next)
                heard += 1
            raise Died
        except (StopAsyncIteration, asyncio.CancelledError):
            return
        finally:
            self._loop.run_until_complete(self._events.aclose())
            self._loop.close()

    def cancel(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(lambda: self._next.cancel())


@pytest.fixture
def replicas() -> list[FakeGenerator]:
    return [FakeGenerator(), FakeGenerator()]


@pytest.fixture
def begin(replicas) -> Callable[..., LocalStream]:
    """Begins a drawing at the replica that draws nothing, else at the first."""
    drawers, started = [Drawer(lambda each=each: each) for each in replicas], []
    lock = threading.Lock()

    def draw(*arguments) -> LocalStream:
        with lock:
            started.append(arguments)
            return LocalStream(drawers[(len(started) - 1) % len(drawers)], arguments)

    draw.started = started
    return draw


def remote(draw: Callable, drawings: int = 2) -> RemoteGenerator:
    return RemoteGenerator(FakeGenerator(), draw, drawings, lost=(Died,))


def seeds(pictures) -> list[int]:
    return [picture.seed for picture in pictures]


def test_a_page_is_described_by_what_it_knows_and_draws_what_a_replica_draws(begin, replicas):
    request = Request("a cat", seed=3, steps=4, num_images=2)
    generator, (there,) = remote(begin), replicas[0].pictures([Request("a cat", seed=3, steps=1)])
    assert generator.name == "fake-model" and generator.tokens("abc") == (3, 100)
    first, second = generator.pictures([request])
    assert (first.image.tobytes(), second.seed) == (there.image.tobytes(), 4)


def test_steps_and_previews_of_a_replica_are_told(begin, replicas):
    told, previews = [], []
    replicas[0].step_seconds = 0.11  # those that follow each other more closely are merged
    pictures = remote(begin).pictures(
        [Request("a cat", steps=4)], lambda done, total: told.append((done, total)) or False,
        on_preview=previews.append,
    )  # fmt: skip
    assert seeds(pictures) == [0] and (3, 4) in told and told == sorted(told) and previews


def test_as_many_jobs_are_drawn_at_once_as_there_are_replicas(begin, replicas):
    for each in replicas:
        each.hold()
    worker = Worker(remote(begin))
    jobs = [worker.submit([Request(f"{n}", steps=2, lora_scale=0.5)]) for n in range(3)]
    assert worker.max_active == 2 and worker.waiting == 1
    for each in replicas:
        each.release()
    assert [seeds(e for e in job if isinstance(e, Picture)) for job in jobs] == [[0]] * 3


def test_a_job_that_is_cancelled_frees_its_replica(begin, replicas):
    replicas[0].step_seconds = 0.05
    replicas[0].hold(3)
    worker = Worker(remote(begin, drawings=1))
    job = worker.submit([Request("a cat", steps=100)])
    next(event for event in job if isinstance(event, Step) and event.done)
    job.cancel()
    replicas[0].release()
    assert seeds(e for e in worker.submit([Request("a dog", steps=1)]) if isinstance(e, Picture))
    assert worker.counts["cancelled"] == 1 and len(replicas[0].steps) < 50  # of 100


def test_what_goes_wrong_at_a_replica_is_told_as_here(begin, replicas):
    replicas[0].error = UserError("The card is out of memory. Draw fewer pictures at once.")
    with pytest.raises(UserError, match="out of memory"):
        list(remote(begin).pictures([Request("a cat", steps=1)]))


def test_whoever_says_so_stops_the_drawing(begin, replicas):
    replicas[0].step_seconds = 0.11
    with pytest.raises(Cancelled):
        list(remote(begin).pictures([Request("a cat", steps=50)], lambda done, _: done >= 2))


def test_a_replica_that_dies_is_replaced_and_no_picture_comes_twice(replicas):
    drawers, lives = [Drawer(lambda each=each: each) for each in replicas], iter([4, None])

    def draw(*arguments) -> LocalStream:
        return LocalStream(drawers.pop(0), arguments, next(lives))

    # Its three steps come as one event or more, and then its pictures.
    pictures = list(remote(draw).pictures([Request("a cat", steps=1, num_images=5)]))
    assert seeds(pictures) == [0, 1, 2, 3, 4]
    assert len({picture.image.tobytes() for picture in pictures}) == 5 and not drawers


def test_a_drawing_that_kills_every_replica_is_given_up(replicas):
    tries = []

    def draw(*arguments) -> LocalStream:
        tries.append(arguments)
        return LocalStream(Drawer(lambda: FakeGenerator()), arguments, dies_after=1)

    with pytest.raises(UserError) as given_up:
        list(remote(draw).pictures([Request("a cat", steps=3)]))
    assert str(given_up.value) == LOST and len(tries) == MAX_TRIES


def test_the_stages_of_a_drawing_come_from_a_replica_too(begin):
    stages = list(remote(begin).stages(Request("a cat", steps=4), 3))
    assert [picture.settings["done"] for picture in stages] == [0, 2, 4]
    assert begin.started[0][1] == 3
