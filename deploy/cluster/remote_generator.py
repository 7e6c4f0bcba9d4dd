"""A generator whose pictures other processes draw: what the page's worker owns in a cluster."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from core.errors import UserError
from sampling.generator import DEFAULT_BATCH_SIZE, AppGenerator, OnPreview, OnStep
from sampling.image import Picture
from sampling.request import Cancelled, Request

NEWS_SECONDS = 0.05  # until it is asked whether to cancel, where a replica tells nothing
MAX_TRIES = 3  # of a drawing whose replicas die: it may be what kills them
LOST = f"The machines that drew this broke down {MAX_TRIES} times. Try again, or ask for less."


class Stream(Protocol):
    """The events of a drawing, as they come from a replica."""

    def __iter__(self) -> Iterator[Any]: ...

    def cancel(self) -> None: ...


class RemoteDrawing:
    """A drawing that a replica makes, and what is heard of it.

    Where the replica is lost, another one draws it from the beginning; a seed gives the same
    pictures again, and those that have come are not repeated.
    """

    shape = ()  # the worker steps drawings of one shape together, which is to wait for any of them

    def __init__(
        self, start: Callable[[], Stream], lost: tuple[type[Exception], ...],
        news: threading.Condition,
    ):  # fmt: skip
        """`start` begins it, `lost` are errors that a dying replica leaves behind, `news` is told
        when there is some."""
        self.done = 0  # events that were heard
        self._pictures = 0  # of them
        self._start, self._lost, self._news = start, lost, news
        self._events: deque[Any] = deque()
        self._stream: Stream | None = None
        self._cancelled = False
        threading.Thread(target=self._read, name="remote drawing", daemon=True).start()

    @property
    def has_news(self) -> bool:
        return bool(self._events)

    def heard(self) -> Iterator[Any]:
        """What has come since the last call; None at the end."""
        while self._events:
            yield self._events.popleft()

    def cancel(self) -> None:
        """Stop drawing. Does nothing to a drawing that is over."""
        with self._news:
            self._cancelled = True
            stream = self._stream
        if stream:
            stream.cancel()

    def _put(self, event: Any) -> None:
        with self._news:
            self.done += 1
            self._events.append(event)
            self._news.notify_all()

    def _read(self) -> None:
        try:
            for _ in range(MAX_TRIES):
                if self._has_read_all():
                    return self._put(None)
            self._put(UserError(LOST))
        except Exception as error:
            self._put(error)

    def _has_read_all(self) -> bool:
        """Whether a replica told all; False where it was lost. Pictures are told once."""
        again = self._pictures
        try:
            for event in self._begun():
                if isinstance(event, Picture):
                    if again:
                        again -= 1
                        continue
                    self._pictures += 1
                self._put(event)
        except self._lost:
            return self._cancelled
        return True

    def _begun(self) -> Iterator[Any]:
        stream = self._start()
        with self._news:
            self._stream, cancelled = stream, self._cancelled
        if cancelled:
            stream.cancel()
        return iter(stream)


class RemoteGenerator(AppGenerator):
    """Draws by replicas, several drawings at once; all else is what `described` says."""

    draws_side_by_side = True

    def __init__(
        self, described: AppGenerator, draw: Callable[[Sequence[Request], int], Stream],
        drawings: int, lost: tuple[type[Exception], ...],
    ):  # fmt: skip
        """`draw` has a replica begin, with requests and how many stages of them are wanted (0: the
        pictures), `drawings` are made at once, `lost` is raised by a stream whose replica has
        died."""
        self.name, self.size, self.draws = described.name, described.size, described.draws
        self.run, self.title, self.card = described.run, described.title, described.card
        self.folder, self.captions = described.folder, described.captions
        self.examples = described.examples
        self.remote_drawings, self.ready = drawings, False
        self._described = described
        self._draw, self._lost = draw, lost
        self._news = threading.Condition()

    def tokens(self, prompt: str) -> tuple[int, int]:
        return self._described.tokens(prompt)

    def dropped_words(self, prompt: str) -> str:
        return self._described.dropped_words(prompt)

    def pictures(
        self, requests: Sequence[Request], on_step: OnStep | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE, on_preview: OnPreview | None = None,
    ) -> Iterator[Picture]:  # fmt: skip
        return self.stepped(self.denoising_events(requests, on_step, batch_size, on_preview))

    def denoising_events(
        self, requests: Sequence[Request], on_step: OnStep | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE, on_preview: OnPreview | None = None,
    ) -> Iterator[Any]:  # fmt: skip
        """See AppGenerator: a step is to wait until something is heard of a drawing."""
        return self._events(lambda: self._draw(requests, 0), on_step, on_preview)

    def stages(
        self, request: Request, count: int, on_step: OnStep | None = None
    ) -> Iterator[Picture]:
        events = self._events(lambda: self._draw([request], count), on_step)
        return self.stepped(events)

    def _events(
        self, start: Callable[[], Stream], on_step: OnStep | None,
        on_preview: OnPreview | None = None,
    ) -> Iterator[Any]:  # fmt: skip
        drawing = RemoteDrawing(start, self._lost, self._news)
        steps = (0, 0)  # done, and in all
        try:
            while True:
                yield drawing
                if not drawing.has_news and on_step and on_step(*steps):
                    raise Cancelled
                for event in drawing.heard():
                    if event is None:
                        return
                    if isinstance(event, Exception):
                        raise event
                    if isinstance(event, Picture):
                        yield event
                        continue
                    steps = event.done, event.total
                    if on_preview and event.preview:
                        on_preview(list(event.preview))
                    if on_step and on_step(*steps):
                        raise Cancelled
        finally:
            drawing.cancel()

    def step(self, drawings: Sequence[Any]) -> None:
        """See AppGenerator: wait until something is heard of one of them, or for a moment."""
        with self._news:
            self._news.wait_for(lambda: any(each.has_news for each in drawings), NEWS_SECONDS)
