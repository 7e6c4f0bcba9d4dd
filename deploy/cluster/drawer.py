"""Draws for the page in a process of its own: what each replica of Ray Serve runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence

from core.errors import UserError
from sampling.generator import AppGenerator
from sampling.image import Picture
from sampling.request import Request
from sampling.stages import StagesGenerator
from webapp.job import Job, Step
from webapp.worker import Worker

Event = Step | Picture | Exception


class Drawer:
    """A generator and the app's own worker, which draws several jobs in one batch on a GPU and
    stops one that nobody waits for within a step."""

    def __init__(self, load: Callable[[], AppGenerator]):
        """Opens the model; what is to draw waits until then."""
        self._worker = Worker(load())

    async def is_open(self) -> bool:
        return True

    async def draw(self, requests: Sequence[Request], stages: int = 0) -> AsyncIterator[Event]:
        """The steps and pictures of a drawing, or so many `stages` of each picture.

        What ends it early comes as its last event, as it would lose its type on the way if it were
        raised. Leaving the iteration cancels it.
        """
        staged = StagesGenerator(self._worker.generator, stages) if stages else None
        try:
            submitted = self._worker.submit(requests, generator=staged)
        except UserError as error:
            yield error
            return
        with submitted as job:
            async for event in events_of(job):
                if isinstance(event, Event):
                    yield event


async def events_of(job: Job) -> AsyncIterator[object]:
    """The events of a job, which a thread waits for; an exception that it raises is the last."""
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[object] = asyncio.Queue()

    def put(event: object) -> None:
        loop.call_soon_threadsafe(events.put_nowait, event)

    def read() -> None:
        try:
            for event in job:
                put(event)
        except Exception as error:
            put(error)
        put(None)

    threading.Thread(target=read, name="events", daemon=True).start()
    while (event := await events.get()) is not None:
        yield event
