"""Cancels what a page asked for when nobody listens for the result."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from webapp import limits

if TYPE_CHECKING:
    from webapp.gradio_patches import SessionEvents


class AbandonedEvents:
    """Cancels the events of sessions whose listener does not come within LISTEN_SECONDS.

    gradio cancels them when a listener disconnects, and would wait for ever for one that never
    connects. All methods are for the thread of the event loop.
    """

    def __init__(self, events: SessionEvents):
        self._events = events
        self._listeners: Counter[str] = Counter()  # connections of each session
        self._tasks: set[asyncio.Task] = set()  # else the event loop would forget them

    def expect_listener(self, session: str) -> None:
        """To be called when an event of the session has been queued."""
        seconds = limits.LISTEN_SECONDS
        asyncio.get_running_loop().call_later(seconds, self._check, session, time.monotonic())

    @contextmanager
    def listening(self, session: str) -> Iterator[None]:
        self._listeners[session] += 1
        try:
            yield
        finally:
            self._listeners[session] -= 1
            self._listeners += Counter()  # drops the zeros

    def _check(self, session: str, queued_at: float) -> None:
        if session in self._listeners:
            return
        # Later events of the session have a check of their own.
        task = asyncio.create_task(self._events.cancel(session, before=queued_at))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
