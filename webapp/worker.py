"""The worker: one thread that owns the generator and draws all jobs, whichever API they come from.

Jobs are drawn one at a time, or on a GPU several in one batch. A job is drawn in the worker's
thread and its events are read in another; no other thread touches the pipeline.
"""

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from core.errors import UserError
from sampling.image import Picture
from sampling.request import Cancelled, Request
from webapp.limits import Limits
from webapp.queue import DEFAULT_SIDE, Client, FairQueue

if TYPE_CHECKING:
    from collections.abc import Generator as Steps

    from PIL import Image

    from sampling.denoiser import Drawing
    from sampling.generator import Generator

APP_ITSELF = Client()
MAX_BATCH = 8  # jobs, and pictures of the model's own size, that take their steps together


@dataclass(frozen=True)
class Queued:
    """`ahead` jobs are drawn before this one."""

    ahead: int


@dataclass(frozen=True)
class Step:
    """`done` of the job's `total` denoising steps are over; 0 of 0 while the model opens."""

    done: int
    total: int
    preview: "tuple[Image.Image, ...]" = ()  # small: what the pictures are going to be


@dataclass(frozen=True)
class PromptTruncated:
    """`words`, the end of a prompt, are beyond the token limit of the model's text encoder."""

    words: str


@dataclass(frozen=True)
class NotSaved:
    """A picture was drawn but could not be saved to the gallery: `sentence` says why."""

    sentence: str


Event = Queued | Step | PromptTruncated | NotSaved | Picture
MIN_INTERVALS = {Queued: 1.0, Step: 0.1}  # seconds after an event before one of these is given


class Job:
    """Requests that are drawn together. Iterate over it, once, for its events.

    As a context manager it is cancelled at the end, also where nobody came to iterate.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        client: Client,
        on_cancel: "Callable[[Job], None]",
        generator: "Generator",
        batched: bool = False,
        keep: Callable[[Picture], None] | None = None,
    ):
        """`on_cancel` is called when the job is cancelled, maybe more than once. `batched`: the
        worker takes the steps of its `drawing`, in one batch with other jobs. `keep` is given its
        pictures, and may raise UserError."""
        self.requests = requests
        self.generator = generator
        self.batched = batched
        self.client = client
        self.pictures = 0  # drawn so far
        self.outcome = ""  # "done", "cancelled" or "failed"
        self._steps = self._draw()
        self._on_cancel = on_cancel
        self._keep = keep
        self._events: SimpleQueue[Event | Exception | None] = SimpleQueue()  # None at the end
        self._cancelled = threading.Event()
        self._preview: tuple[Image.Image, ...] = ()
        self._last_event_at = -math.inf  # of time.monotonic()

    def cancel(self) -> None:
        """Leave the queue, or stop drawing within one denoising step. Does nothing to a job that is
        over."""
        self._cancelled.set()
        self._events.put(Cancelled())
        self._on_cancel(self)

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_) -> None:
        self.cancel()

    def __iter__(self) -> Iterator[Event]:
        """The job's events until all is drawn. Leaving the iteration cancels the job.

        Raises Cancelled after `cancel`, and UserError where drawing fails.
        """
        try:
            while (event := self._next_event()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.cancel()

    def _next_event(self) -> Event | Exception | None:
        """The next event. Queue places and steps that follow each other closely are merged."""
        event = self._events.get()
        with suppress(Empty):
            while interval := MIN_INTERVALS.get(type(event)):
                due = self._last_event_at + interval
                later = self._events.get(timeout=max(0, due - time.monotonic()))
                if isinstance(event, Step) and isinstance(later, Step) and not later.preview:
                    later = replace(later, preview=event.preview)
                event = later
        self._last_event_at = time.monotonic()
        return event

    def put(self, event: Event) -> None:
        """For the worker: add an event for whoever iterates over the job."""
        self._events.put(event)

    def advance(self) -> "Drawing | None":
        """For the worker: draw as far as it goes without a batched step, and return the drawing
        that needs one. None when the job is over and has an `outcome`; no error leaves it."""
        try:
            for event in self._steps:
                if not isinstance(event, Picture):
                    return event
                self.pictures += 1
                self.put(event)
                self._save(event)
        except Exception as error:
            self.fail(error)
        else:
            self._events.put(None)
            self.outcome = "done"
        return None

    def _save(self, picture: Picture) -> None:
        if self._keep is None or picture.problem:
            return
        try:
            self._keep(picture)
        except UserError as error:
            logging.getLogger(__name__).warning("%s", error)
            self.put(NotSaved(str(error)))

    def fail(self, error: Exception) -> None:
        """For the worker: end the job with an error, which becomes a sentence unless it was
        cancelled."""
        self._steps.close()
        self.outcome = "cancelled" if isinstance(error, Cancelled) else "failed"
        if not isinstance(error, Cancelled | UserError):
            logging.getLogger(__name__).error("Drawing failed: %s", self.requests, exc_info=error)
            error = UserError("Drawing failed. Try other settings; the app's terminal says more.")
        # A new one, because the frames of the original hold what was on the device.
        self._events.put(type(error)(*error.args))

    def release(self) -> None:
        """For the worker, when the job is over: drop the requests with their init images, because
        pages keep their last job."""
        self.requests = ()

    def _draw(self) -> "Steps[Picture | Drawing, None, None]":
        generator = self.generator
        if self._on_step(0, 0):
            raise Cancelled
        for request in self.requests:
            if words := generator.dropped_words(request.words):
                self.put(PromptTruncated(words))
        draw = generator.course if self.batched else generator.pictures
        yield from draw(self.requests, self._on_step, on_preview=self._on_preview)

    def _on_step(self, done: int, total: int) -> bool:
        self.put(Step(done, total, self._preview))
        self._preview = ()
        return self._cancelled.is_set()

    def _on_preview(self, images: "list[Image.Image]") -> None:
        self._preview = tuple(images)


class Worker:
    """Draws the jobs of a fair queue: one at a time, or several in one batch where the generator
    can. A job once begun is finished before others are begun."""

    def __init__(
        self,
        generator: "Generator",
        limits: Limits | None = None,
        keep: Callable[[Picture], None] | None = None,
    ):
        """`keep` is given each picture, in the worker's thread; it may raise UserError."""
        self.generator = generator
        self.limits = limits or Limits()
        self._keep = keep
        self.counts: Counter[str] = Counter()  # of jobs by outcome, "refused" ones, and "pictures"
        self.drawing_seconds = 0.0
        self._active: list[Job] = []
        self._side = getattr(generator, "size", None) or DEFAULT_SIDE
        self._max_pixels = MAX_BATCH * self._side**2
        self._queue = FairQueue()
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="worker", daemon=True).start()

    @property
    def waiting(self) -> int:
        """How many jobs wait, without those being drawn."""
        with self._changed:
            return len(self._queue)

    def submit(
        self,
        requests: Sequence[Request],
        client: Client = APP_ITSELF,
        generator: "Generator | None" = None,
        kept: bool = True,
    ) -> Job:
        """Queue a job. Jobs of different clients take turns.

        `generator` draws it instead of the worker's own, also in the worker's thread. `kept`: its
        pictures go to the gallery, where there is one. Raises UserError where it asks for more
        than the limits, Busy where the queue or this client's share of it is full.
        """
        self.limits.check(requests)
        generator = generator or self.generator
        batched = generator is self.generator and getattr(generator, "draws_side_by_side", False)
        keep = self._keep if kept else None
        job = Job(requests, client, self._on_cancel, generator, batched, keep)
        with self._changed:
            if not len(self._queue) and self._has_room_for(job):
                self._active.append(job)
                job.put(Queued(0))
                self._changed.notify()
            else:
                self._enqueue(job)
        return job

    def _has_room_for(self, job: Job) -> bool:
        if not self._active:
            return True
        jobs = [*self._active, job]
        if len(jobs) > MAX_BATCH or not all(j.batched for j in jobs):
            return False
        return sum(map(self._pixels, jobs)) <= self._max_pixels

    def _pixels(self, job: Job) -> int:
        """About how many pixels of it are drawn at once."""
        sides = [(r.width or self._side) * (r.height or self._side) for r in job.requests]
        return max(sides) * min(MAX_BATCH, sum(r.num_images for r in job.requests))

    def _enqueue(self, job: Job) -> None:
        try:
            self._queue.add(job)
        except UserError:
            self.counts["refused"] += 1
            raise
        self._report_places()

    def _on_cancel(self, job: Job) -> None:
        with self._changed:
            if self._queue.remove(job):
                job.release()
                self.counts["cancelled"] += 1
                self._report_places()

    def _report_places(self) -> None:
        for ahead, job in enumerate(self._queue, start=1):
            job.put(Queued(ahead))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._active)
                jobs = list(self._active)
            started = time.monotonic()
            self._advance(jobs)
            with self._changed:
                self.drawing_seconds += time.monotonic() - started
                for job in jobs:
                    if job.outcome:
                        self._active.remove(job)
                        self.counts += Counter({job.outcome: 1, "pictures": job.pictures})
                        job.release()
                self._admit()

    def _advance(self, jobs: list[Job]) -> None:
        """Draw on all of them, the next steps of drawings of one shape in one batch."""
        advanced = [(job, job.advance()) for job in jobs]
        batch = [(job, drawing) for job, drawing in advanced if drawing is not None]
        for _, same_shape in groupby(sorted(batch, key=_shape), key=_shape):
            self._step_batch(list(same_shape))

    def _step_batch(self, batch: "list[tuple[Job, Drawing]]") -> None:
        before = [drawing.done for _, drawing in batch]
        try:
            return self.generator.step([drawing for _, drawing in batch])
        except Exception as error:
            if len(batch) == 1:
                return batch[0][0].fail(error)
            message = "A batch of %d drawings failed, they go on one by one: %s"
            logging.getLogger(__name__).warning(message, len(batch), str(error))
        # Outside the `except`: the error holds all that was in memory when it was raised.
        for (job, drawing), done in zip(batch, before, strict=True):
            if drawing.done == done:
                self._step_batch([(job, drawing)])
        if not any(job.outcome for job, _ in batch):  # none alone was at fault, but their number
            self._max_pixels //= 2

    def _admit(self) -> None:
        """Begin the jobs that are next and fit beside the active ones."""
        while (job := next(iter(self._queue), None)) and self._has_room_for(job):
            self._queue.take()
            self._active.append(job)
            self._report_places()


def _shape(entry: "tuple[Job, Drawing]") -> tuple:
    return entry[1].shape
