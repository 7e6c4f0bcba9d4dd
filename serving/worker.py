"""One worker owns the generator: whatever the entrance, pictures are drawn one job at a time.

A job is drawn in the worker's thread and followed from another. Nothing but the worker's thread
touches the pipeline, so that no two jobs can mix.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

from errors import UserError
from serving.line import Line
from serving.picture import Picture
from serving.request import Cancelled, Request

if TYPE_CHECKING:
    from PIL import Image

    from generate import Generator


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

    def __init__(
        self,
        requests: Sequence[Request],
        client: str,
        leave: "Callable[[Job], None]",
        generator: "Generator",
    ):
        """`leave` is told of the job when it is called off, maybe more than once."""
        self.requests = requests
        self.generator = generator
        self.client = client
        self.pictures = 0  # drawn so far
        self._leave = leave
        self._events = SimpleQueue()  # of Event, an Exception, None at the end
        self._cancelled = threading.Event()
        self._expected = ()

    def cancel(self) -> None:
        """Leave the line, or stop drawing within one denoising step. Harmless when all is over."""
        self._cancelled.set()
        self._events.put(Cancelled())
        self._leave(self)

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

    def draw(self) -> str:
        """For the worker: draw, and turn everything that happens into events.

        Returns "done", "cancelled" or "failed".
        """
        generator = self.generator
        try:
            if self._on_step(0, 0):
                return "cancelled"
            for request in self.requests:
                if words := generator.dropped_words(request.prompt):
                    self.tell(Unread(words))
            for picture in generator.pictures(
                self.requests, self._on_step, on_preview=self._on_preview
            ):
                self.pictures += 1
                self.tell(picture)
            self._events.put(None)
            return "done"
        except Cancelled as end:
            self._events.put(end)
            return "cancelled"
        except UserError as error:
            self._events.put(error)
        except Exception:
            logging.getLogger(__name__).exception("Drawing failed: %s", self.requests)
            self._events.put(
                UserError("Drawing failed. Try other settings; the app's terminal says more.")
            )
        return "failed"

    def _on_step(self, done: int, total: int) -> bool:
        self.tell(Step(done, total, self._expected))
        self._expected = ()
        return self._cancelled.is_set()

    def _on_preview(self, images: "list[Image.Image]") -> None:
        self._expected = tuple(images)


class Worker:
    """Draws one job at a time; which one is next, the line says. A job once begun is finished."""

    def __init__(self, generator: "Generator"):
        self.generator = generator
        self.counts = Counter()  # jobs "done", "failed", "cancelled", "refused"; "pictures"
        self.drawing_seconds = 0.0
        self._drawing: Job | None = None
        self._line = Line()
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="worker", daemon=True).start()

    @property
    def waiting(self) -> int:
        """How many jobs wait, without the one that is being drawn."""
        with self._changed:
            return len(self._line)

    def submit(
        self,
        requests: Sequence[Request],
        client: str = "",
        generator: "Generator | None" = None,
    ) -> Job:
        """Queue a job. Jobs of different clients take turns; "" is nobody in particular.

        `generator` draws it instead of the worker's own, in the worker's thread as well. Raises
        Busy when too much waits already, or too much of this client's.
        """
        job = Job(requests, client, self._leave, generator or self.generator)
        with self._changed:
            if self._drawing:
                self._wait_in_line(job)
            else:
                self._drawing = job
                job.tell(Waiting(0))
                self._changed.notify()
        return job

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
                self.counts["cancelled"] += 1
                self._tell_places()

    def _tell_places(self) -> None:
        for ahead, job in enumerate(self._line, start=1):
            job.tell(Waiting(ahead))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._drawing)
            started = time.monotonic()
            outcome = self._drawing.draw()
            with self._changed:
                self.drawing_seconds += time.monotonic() - started
                self.counts += Counter({outcome: 1, "pictures": self._drawing.pictures})
                self._drawing = self._line.take()
                self._tell_places()
