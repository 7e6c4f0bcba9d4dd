"""One worker owns the generator: whatever the entrance, jobs are drawn one at a time, or on a GPU
some of them side by side.

A job is drawn in the worker's thread and followed from another. Nothing but the worker's thread
touches the pipeline, so that no two jobs can mix.
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
from webapp.queue import USUAL_SIDE, Client, FairQueue

if TYPE_CHECKING:
    from PIL import Image

    from sampling.denoiser import Drawing
    from sampling.generator import AppGenerator, PictureGenerator

NOBODY = Client()  # in particular
TOGETHER = 8  # jobs, and pictures of the model's own size, that take their steps together


@dataclass(frozen=True)
class Queued:
    """`ahead` jobs are drawn before this one."""

    ahead: int


@dataclass(frozen=True)
class Step:
    """`done` of the job's `total` denoising steps are over; 0 of 0 while the model opens."""

    done: int
    total: int
    expected: "tuple[Image.Image, ...]" = ()  # small: what the pictures are going to be


@dataclass(frozen=True)
class PromptTruncated:
    """`words`, the end of a prompt, are beyond what the model's text encoder reads."""

    words: str


@dataclass(frozen=True)
class NotSaved:
    """A picture was drawn, and could not be kept for the owner: `sentence` says why."""

    sentence: str


Event = Queued | Step | PromptTruncated | NotSaved | Picture
PAUSES = {Queued: 1.0, Step: 0.1}  # seconds, least, before another event of these is told


class Job:
    """Requests on their way to becoming pictures. Iterate over it once, to follow it.

    As a context it is called off with its end: also where nobody came to follow it.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        client: Client,
        leave: "Callable[[Job], None]",
        generator: "PictureGenerator",
        side_by_side: bool = False,
        keep: Callable[[Picture], None] | None = None,
    ):
        """`leave` is told of the job when it is called off, maybe more than once. `side_by_side`:
        the worker takes the steps of its `drawing`, with those of other jobs. `keep` is given its
        pictures, and may raise UserError."""
        self.requests = requests
        self.generator = generator
        self.side_by_side = side_by_side
        self.client = client
        self.pictures = 0  # drawn so far
        self.drawing: Drawing | None = None
        self.outcome = ""  # "done", "cancelled" or "failed"
        self._course = self._draw()
        self._leave = leave
        self._keep = keep
        self._events = SimpleQueue()  # of Event, an Exception, None at the end
        self._cancelled = threading.Event()
        self._expected = ()
        self._told = -math.inf  # when the last event was handed out

    def cancel(self) -> None:
        """Leave the line, or stop drawing within one denoising step. Harmless when all is over."""
        self._cancelled.set()
        self._events.put(Cancelled())
        self._leave(self)

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_) -> None:
        self.cancel()

    def __iter__(self) -> Iterator[Event]:
        """What happens, until all is drawn. Whoever stops following cancels the job.

        Raises Cancelled after `cancel`, and UserError with a sentence when drawing fails.
        """
        try:
            for event in iter(self._next_event, None):
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.cancel()

    def _next_event(self):
        """Of places and steps, the last of a while is news enough; all else comes at once."""
        event = self._events.get()
        with suppress(Empty):
            while pause := PAUSES.get(type(event)):
                due = self._told + pause
                later = self._events.get(timeout=max(0, due - time.monotonic()))
                if isinstance(event, Step) and isinstance(later, Step) and not later.expected:
                    later = replace(later, expected=event.expected)
                event = later
        self._told = time.monotonic()
        return event

    def tell(self, event: Event) -> None:
        """For the worker: hand an event to whoever follows the job."""
        self._events.put(event)

    def advance(self) -> bool:
        """For the worker: go on, as far as it goes without a step that others share, and turn
        everything that happens into events. False when it is over; then it has an `outcome`."""
        try:
            for event in self._course:
                if not isinstance(event, Picture):
                    self.drawing = event
                    return True
                self.pictures += 1
                self.tell(event)
                self._keep_for_owner(event)
        except Exception as error:
            self.fail(error)
        else:
            self._events.put(None)
            self.drawing = None  # pages keep their last job, which would keep the device's memory
            self.outcome = "done"
        return False

    def _keep_for_owner(self, picture: Picture) -> None:
        if self._keep is None or picture.problem:
            return
        try:
            self._keep(picture)
        except UserError as error:
            logging.getLogger(__name__).warning("%s", error)
            self.tell(NotSaved(str(error)))

    def fail(self, error: Exception) -> None:
        """For the worker: end, with a sentence where it was not called off."""
        self._course.close()
        self.drawing = None
        self.outcome = "cancelled" if isinstance(error, Cancelled) else "failed"
        if not isinstance(error, Cancelled | UserError):
            logging.getLogger(__name__).error("Drawing failed: %s", self.requests, exc_info=error)
            error = UserError("Drawing failed. Try other settings; the app's terminal says more.")
        # Anew, because the frames of the error that came hold what was on the device.
        self._events.put(type(error)(*error.args))

    def forget(self) -> None:
        """For the worker, when it is over: pages keep their last job, which would keep the pictures
        that it started from."""
        self.requests = ()

    def _draw(self) -> "Iterator[Picture | Drawing]":
        generator = self.generator
        if self._on_step(0, 0):
            raise Cancelled
        for request in self.requests:
            if words := generator.dropped_words(request.words):
                self.tell(PromptTruncated(words))
        draw = generator.denoising_events if self.side_by_side else generator.pictures
        yield from draw(self.requests, self._on_step, on_preview=self._on_preview)

    def _on_step(self, done: int, total: int) -> bool:
        self.tell(Step(done, total, self._expected))
        self._expected = ()
        return self._cancelled.is_set()

    def _on_preview(self, images: "list[Image.Image]") -> None:
        self._expected = tuple(images)


class Worker:
    """Draws one job at a time, or several side by side where the generator does; which one is next,
    the line says. A job once begun is finished."""

    def __init__(self, generator: "AppGenerator", keep: Callable[[Picture], None] | None = None):
        """`keep` is given each picture, in the worker's thread; it may raise UserError."""
        self.generator = generator
        self._keep = keep
        self.counts = Counter()  # jobs "done", "failed", "cancelled", "refused"; "pictures"
        self.drawing_seconds = 0.0
        self._drawn: list[Job] = []  # now
        self._side = generator.size or USUAL_SIDE
        self._room = TOGETHER * self._side**2  # pixels
        self._line = FairQueue()
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="worker", daemon=True).start()

    @property
    def waiting(self) -> int:
        """How many jobs wait, without those that are being drawn."""
        with self._changed:
            return len(self._line)

    def submit(
        self,
        requests: Sequence[Request],
        client: Client = NOBODY,
        generator: "PictureGenerator | None" = None,
        kept: bool = True,
    ) -> Job:
        """Queue a job. Jobs of different clients take turns.

        `generator` draws it instead of the worker's own, in the worker's thread as well. `kept`:
        its pictures are the owner's, where those are kept. Raises Busy when too much waits
        already, or too much of this client's.
        """
        generator = generator or self.generator
        shares = generator is self.generator and self.generator.draws_side_by_side
        # Drawings side by side share the weights, which hold a LoRA at one scale.
        shares = shares and all(request.lora_scale == 1 for request in requests)
        job = Job(requests, client, self._leave, generator, shares, self._keep if kept else None)
        with self._changed:
            if not len(self._line) and self._has_room_for(job):
                self._drawn.append(job)
                job.tell(Queued(0))
                self._changed.notify()
            else:
                self._wait_in_line(job)
        return job

    def _has_room_for(self, job: Job) -> bool:
        if not self._drawn:
            return True
        jobs = [*self._drawn, job]
        if len(jobs) > TOGETHER or not all(j.side_by_side for j in jobs):
            return False
        return sum(map(self._pixels, jobs)) <= self._room

    def _pixels(self, job: Job) -> int:
        """How much of it is drawn at once, about."""
        sides = [(r.width or self._side) * (r.height or self._side) for r in job.requests]
        return max(sides) * min(TOGETHER, sum(r.num_images for r in job.requests))

    def _wait_in_line(self, job: Job) -> None:
        try:
            self._line.add(job)
        except UserError:
            self.counts["refused"] += 1
            raise
        self._tell_places()

    def _leave(self, job: Job) -> None:
        with self._changed:
            if self._line.remove(job):
                job.forget()
                self.counts["cancelled"] += 1
                self._tell_places()

    def _tell_places(self) -> None:
        for ahead, job in enumerate(self._line, start=1):
            job.tell(Queued(ahead))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._drawn)
                jobs = list(self._drawn)
            started = time.monotonic()
            self._step([job for job in jobs if job.advance()])
            with self._changed:
                self.drawing_seconds += time.monotonic() - started
                for job in jobs:
                    if job.outcome:
                        self._drawn.remove(job)
                        self.counts += Counter({job.outcome: 1, "pictures": job.pictures})
                        job.forget()
                self._admit()

    def _step(self, jobs: list[Job]) -> None:
        """The next step of their drawings, those of one shape together."""
        jobs = sorted(jobs, key=lambda job: job.drawing.shape)
        for _, group in groupby(jobs, key=lambda job: job.drawing.shape):
            self._step_together(list(group))

    def _step_together(self, jobs: list[Job]) -> None:
        before = [job.drawing.done for job in jobs]
        try:
            return self.generator.step([job.drawing for job in jobs])
        except Exception as error:
            if len(jobs) == 1:
                return jobs[0].fail(error)
            logging.getLogger(__name__).warning(
                "%d drawings, one by one: %s", len(jobs), str(error)
            )
        # After the error is forgotten, which holds all that was in memory when it came.
        for job, done in zip(jobs, before, strict=True):
            if job.drawing.done == done:
                self._step_together([job])
        if not any(job.outcome for job in jobs):  # then it was not one of them, but their number
            self._room //= 2

    def _admit(self) -> None:
        while (job := next(iter(self._line), None)) and self._has_room_for(job):
            self._drawn.append(self._line.take())
            self._tell_places()
