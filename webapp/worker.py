"""The worker: one thread that owns the generator and draws all jobs, whichever API they come from.

Jobs are drawn one at a time, on a GPU several in one batch, or as many as other processes draw.
A job is drawn in the worker's thread and its events are read in another; no other thread touches
the pipeline.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from core.errors import UserError
from sampling.image import Picture
from sampling.request import Cancelled, Request
from webapp.job import Job, Queued
from webapp.limits import Limits
from webapp.queue import DEFAULT_SIDE, Busy, Client, FairQueue, LiveQueue

if TYPE_CHECKING:
    from sampling.denoiser import Drawing
    from sampling.generator import AppGenerator, PictureGenerator

APP_ITSELF = Client()
MAX_BATCH = 8  # jobs, and pictures of the model's own size, that take their steps together


class Worker:
    """Draws the jobs of a fair queue: one at a time, or several in one batch where the generator
    can. A job that has begun is not interrupted by others, unless it is a live one."""

    def __init__(
        self,
        generator: "AppGenerator",
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
        self._held = False
        self._side = generator.size or DEFAULT_SIDE
        self._max_pixels = MAX_BATCH * self._side**2
        self._queue, self._live = FairQueue(), LiveQueue()
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="worker", daemon=True).start()

    @property
    def waiting(self) -> int:
        """How many jobs wait, without those being drawn and live ones."""
        with self._changed:
            return len(self._queue)

    def submit(
        self,
        requests: Sequence[Request],
        client: Client = APP_ITSELF,
        generator: "PictureGenerator | None" = None,
        kept: bool = True,
    ) -> Job:
        """Queue a job. Jobs of different clients take turns.

        `generator` draws it instead of the worker's own, also in the worker's thread. `kept`: its
        pictures go to the gallery, where there is one. Raises UserError where it asks for more
        than the limits, Busy where the queue or this client's share of it is full.
        """
        self.limits.check(requests)
        generator = generator or self.generator
        batched = self._is_batched(generator, requests)
        keep = self._keep if kept else None
        job = Job(requests, client, self._on_cancel, generator, batched, keep)
        with self._changed:
            if not len(self._queue) and self._has_room_for(job):
                self._active.append(job)
                job.put(Queued(0))
                self._changed.notify()
            else:
                self._enqueue(job)
            for live in self._active_live:
                live.give_way()
        return job

    def submit_live(
        self, request: Request, client: Client, generator: "PictureGenerator | None" = None,
        number: int = 0,
    ) -> Job:  # fmt: skip
        """Queue a drawing of what its client is still changing, in place of the earlier one.

        It waits for all jobs of `submit`. One of them that comes while it is drawn stops it, and it
        is drawn again afterwards. Its pictures are neither kept nor counted. Raises UserError as
        `submit` does, and Cancelled where one of a larger `number` has come before it.
        """
        self.limits.check([request])
        generator = generator or self.generator
        batched = self._is_batched(generator, [request])
        job = Job([request], client, self._on_cancel, generator, batched, live=True)
        job.number = number
        with self._changed:
            if self._held:
                raise Busy("A training run needs the memory. Pictures come when it is over.")
            mine = [each for each in self._active_live if each.client == client]
            mine += filter(None, [self._live.of(client)])
            if any(each.number > number for each in mine):
                raise Cancelled
            self._live.add(job)
            for earlier in mine:
                earlier.cancel()
            self._admit()
            self._changed.notify()
        return job

    @property
    def _active_live(self) -> list[Job]:
        return [job for job in self._active if job.live]

    def hold(self) -> bool:
        """Begin no job from now on. Returns whether none is under way any more: those that are get
        drawn to their end."""
        with self._changed:
            if not self._held:
                self._held = True
                self._report_places()
                for job in [*self._live, *self._active_live]:
                    job.cancel()
            return not self._active

    def let_go(self) -> None:
        """Begin jobs again."""
        with self._changed:
            self._held = False
            self._admit()
            self._changed.notify()

    @property
    def max_active(self) -> int:
        """The most jobs that are drawn at once."""
        return self.generator.remote_drawings or MAX_BATCH

    def _is_batched(self, generator: "PictureGenerator", requests: Sequence[Request]) -> bool:
        if generator is not self.generator or not self.generator.draws_side_by_side:
            return False
        # Drawings in this process share the weights, which hold a LoRA at one scale.
        return bool(self.generator.remote_drawings) or all(r.lora_scale == 1 for r in requests)

    def _has_room_for(self, job: Job) -> bool:
        if self._held:
            return False
        if not self._active:
            return True
        jobs = [*self._active, job]
        if len(jobs) > self.max_active or not all(j.batched for j in jobs):
            return False
        if self.generator.remote_drawings:
            return True
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
            if job.live:
                if self._live.remove(job):
                    job.release()
            elif self._queue.remove(job):
                job.release()
                self.counts["cancelled"] += 1
                self._report_places()

    def _report_places(self) -> None:
        only_live = 0 < len(self._active) == len(self._active_live)  # which gives way
        for ahead, job in enumerate(self._queue, start=0 if only_live else 1):
            job.put(Queued(ahead, self._held))

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
                        self._put_away(job)
                self._admit()

    def _put_away(self, job: Job) -> None:
        """What becomes of a job that has been drawn as far as it goes."""
        if job.outcome == "displaced":
            job.outcome = ""
            return self._live.put_back(job)
        if job.live:
            self.counts["live"] += job.pictures
        else:
            self.counts += Counter({job.outcome: 1, "pictures": job.pictures})
        job.release()

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
        while (job := self._next_live()) and self._has_room_for(job):
            self._live.take()
            self._active.append(job)

    def _next_live(self) -> "Job | None":
        """None while there is any other job, even one that it would fit beside."""
        if len(self._queue) or len(self._active) > len(self._active_live):
            return None
        return next(iter(self._live), None)


def _shape(entry: "tuple[Job, Drawing]") -> tuple:
    return entry[1].shape
