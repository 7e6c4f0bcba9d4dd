"""A job: requests that are drawn together, and the events of their drawing."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from core.errors import UserError
from sampling.image import Picture
from sampling.request import Cancelled, Request

if TYPE_CHECKING:
    from collections.abc import Generator as Steps

    from PIL import Image

    from sampling.denoiser import Drawing
    from sampling.generator import PictureGenerator
    from webapp.queue import Client


@dataclass(frozen=True)
class Queued:
    """`ahead` jobs are drawn before this one. `held`: none is begun, as a run needs the memory."""

    ahead: int
    held: bool = False


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
        client: "Client",
        on_cancel: "Callable[[Job], None]",
        generator: "PictureGenerator",
        batched: bool = False,
        keep: Callable[[Picture], None] | None = None,
        live: bool = False,
    ):
        """`on_cancel` is called when the job is cancelled, maybe more than once. `batched`: the
        worker takes the steps of its `drawing`, in one batch with other jobs. `keep` is given its
        pictures, and may raise UserError. `live`: of words that are still being typed; it tells no
        previews."""
        self.requests = requests
        self.generator = generator
        self.batched = batched
        self.client = client
        self.live = live
        self.number = 0  # of a live job among those of its client: the later, the larger
        self.pictures = 0  # drawn so far
        self.outcome = ""  # "done", "cancelled", "failed", or "displaced": see `give_way`
        self._began = 0.0  # of time.monotonic()
        self._gives_way = False
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
        if isinstance(error, Cancelled) and self._gives_way and not self._cancelled.is_set():
            self._steps, self._gives_way, self.outcome = self._draw(), False, "displaced"
            return
        self.outcome = "cancelled" if isinstance(error, Cancelled) else "failed"
        if not isinstance(error, Cancelled | UserError):
            logging.getLogger(__name__).error("Drawing failed: %s", self.requests, exc_info=error)
            error = UserError("Drawing failed. Try other settings; the app's terminal says more.")
        # A new one, because the frames of the original hold what was on the device.
        self._events.put(type(error)(*error.args))

    @property
    def seconds(self) -> float:
        """For how long it has been drawn by now."""
        return time.monotonic() - self._began

    def give_way(self) -> None:
        """For the worker: have it stop within one denoising step. Its outcome is then "displaced",
        and nobody hears of it: it is to be drawn again, from the beginning."""
        self._gives_way = True

    def release(self) -> None:
        """For the worker, when the job is over: drop the requests with their init images, because
        pages keep their last job."""
        self.requests = ()

    def _draw(self) -> "Steps[Picture | Drawing, None, None]":
        generator, self._began = self.generator, time.monotonic()
        if self._on_step(0, 0):
            raise Cancelled
        for request in self.requests:
            if words := generator.dropped_words(request.words):
                self.put(PromptTruncated(words))
        draw = generator.denoising_events if self.batched else generator.pictures
        on_preview = None if self.live else self._on_preview
        yield from draw(self.requests, self._on_step, on_preview=on_preview)

    def _on_step(self, done: int, total: int) -> bool:
        self.put(Step(done, total, self._preview))
        self._preview = ()
        return self._cancelled.is_set() or self._gives_way

    def _on_preview(self, images: "list[Image.Image]") -> None:
        self._preview = tuple(images)
