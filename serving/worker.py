"""One worker owns the generator: whatever the entrance, pictures are drawn one job at a time.

A job is drawn in the worker's thread and followed from another. Nothing but the worker's thread
touches the pipeline, so that no two jobs can mix.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

from errors import UserError
from serving.picture import Picture
from serving.request import Cancelled, Request

if TYPE_CHECKING:
    from PIL import Image

    from generate import Generator

MAX_WAITING_JOBS = 20


@dataclass(frozen=True)
class Waiting:
    """`ahead` jobs are drawn before this one."""

    ahead: int


@dataclass(frozen=True)
class Step:
    """`done` of the job's `total` denoising steps are over; 0 of 0 while the model opens."""

    done: int
    total: int
    expected: "tuple[Image.Image, ...]" = ()  # small: what the pictures are going to be


@dataclass(frozen=True)
class Unread:
    """`words`, the end of a prompt, are beyond what the model's text encoder reads."""

    words: str


Event = Waiting | Step | Unread | Picture


class Job:
    """Requests on their way to becoming pictures. Iterate over it once, to follow it."""

    def __init__(self, requests: Sequence[Request]):
        self.requests = requests
        self._events = SimpleQueue()  # of Event, an Exception, None at the end
        self._cancelled = threading.Event()
        self._expected = ()

    def cancel(self) -> None:
        """Stop drawing within one denoising step. Harmless when the job is over."""
        self._cancelled.set()
        self._events.put(Cancelled())

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
        event = self._events.get()
        # Of steps that piled up behind a slow follower, only the last is news.
        while isinstance(event, Waiting | Step) and not self._events.empty():
            event = self._events.get()
        return event

    def tell(self, event: Event) -> None:
        """For the worker: hand an event to whoever follows the job."""
        self._events.put(event)

    def draw(self, generator: "Generator") -> None:
        """For the worker: draw, and turn everything that happens into events."""
        try:
            if self._on_step(0, 0):
                return
            for request in self.requests:
                if words := generator.dropped_words(request.prompt):
                    self.tell(Unread(words))
            for picture in generator.pictures(
                self.requests, self._on_step, on_preview=self._on_preview
            ):
                self.tell(picture)
            self._events.put(None)
        except (Cancelled, UserError) as end:
            self._events.put(end)
        except Exception:
            logging.getLogger(__name__).exception("Drawing failed: %s", self.requests)
            self._events.put(
                UserError("Drawing failed. Try other settings; the app's terminal says more.")
            )

    def _on_step(self, done: int, total: int) -> bool:
        self.tell(Step(done, total, self._expected))
        self._expected = ()
        return self._cancelled.is_set()

    def _on_preview(self, images: "list[Image.Image]") -> None:
        self._expected = tuple(images)


class Worker:
    """Draws jobs in the order in which they were submitted."""

    def __init__(self, generator: "Generator"):
        self.generator = generator
        self._jobs: deque[Job] = deque()  # waiting, and first the one that is being drawn
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="worker", daemon=True).start()

    def submit(self, requests: Sequence[Request]) -> Job:
        """Queue a job. Raises UserError when too many wait already."""
        job = Job(requests)
        with self._changed:
            ahead = len(self._jobs)
            if ahead > MAX_WAITING_JOBS:
                raise UserError(f"{ahead} drawings are waiting already. Try again in a minute.")
            self._jobs.append(job)
            job.tell(Waiting(ahead))
            self._changed.notify()
        return job

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs)
                job = self._jobs[0]
            job.draw(self.generator)
            with self._changed:
                self._jobs.popleft()
                for ahead, waiting in enumerate(self._jobs):
                    waiting.tell(Waiting(ahead))
