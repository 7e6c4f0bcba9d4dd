"""Who follows what a page was asked to do: what nobody does is called off."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from webapp import limits

if TYPE_CHECKING:
    from gradio.queueing import Event, Queue


class AbandonedEvents:
    """gradio calls off what a session has asked for when its listener goes, and would wait for
    ever for one that never comes. All methods are for the thread of the event loop."""

    def __init__(self, queue: Queue):
        self._queue = queue
        self._listening = Counter()  # connections of each session
        self._tasks = set()  # else the event loop would forget them

    def expect(self, session: str) -> None:
        """The session is about to ask for something."""
        seconds = limits.LISTEN_SECONDS
        asyncio.get_running_loop().call_later(seconds, self._look, session, time.monotonic())

    @contextmanager
    def listening(self, session: str) -> Iterator[None]:
        self._listening[session] += 1
        try:
            yield
        finally:
            self._listening[session] -= 1
            self._listening += Counter()  # without those of none

    def _look(self, session: str, asked: float) -> None:
        if session not in self._listening:
            task = asyncio.create_task(self._call_off(session, asked + limits.LISTEN_SECONDS / 2))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _call_off(self, session: str, before: float) -> None:
        """What the session asked for `before` a time of time.monotonic(); it may ask anew."""
        for event in self._events(session):
            if event.enqueue_time < before:
                await self._queue.clean_events(event_id=event._id)
        if not any(event.alive for event in self._events(session)):
            self._queue.pending_messages_per_session.pop(session, None)
            self._queue.pending_event_ids_session.pop(session, None)

    def _events(self, session: str) -> list[Event]:
        events = self._queue.event_ids_to_events.values()
        return [event for event in events if event.session_hash == session]
