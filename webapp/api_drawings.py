"""Drawings for programs: all HTTP APIs queue, wait for and refuse requests by the same rules."""

import asyncio
import base64
import io
from collections.abc import Awaitable, Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from core.errors import UserError
from sampling.image import Picture
from sampling.init_image import MAX_LOOKED_AT, TooManyPictures
from sampling.request import Cancelled, Request, Unsuitable
from webapp.client_address import HEADER, client_of
from webapp.http_security import Refusal
from webapp.job import Job
from webapp.queue import MAX_WAITING_JOBS, Busy, ClientBusy
from webapp.worker import Worker

RETRY_SECONDS = 60  # as the sentence of a full queue says
MAX_DECODERS = 2 * MAX_LOOKED_AT  # threads for init images; half of them find no place and return
SHARED_ADDRESS = f" A program that names itself in the header {HEADER} has places of its own."
Read = TypeVar("Read")


class DrawingFailed(UserError):
    """A request that was accepted, and then could not be drawn."""


class Drawings:
    """What the HTTP APIs have in common: the worker's queue, and threads that wait for it."""

    def __init__(self, worker: Worker):
        self.worker = worker
        # A thread waits for each job: as many as can wait and be drawn. gradio has its own threads.
        self._waiters = CapacityLimiter(MAX_WAITING_JOBS + worker.max_active)
        self.decoders = CapacityLimiter(MAX_DECODERS)

    async def drawn(
        self, http: HttpRequest, request: Request, read: Callable[[Job, Request], Read]
    ) -> Read:
        """Queue a request; what `read` makes of its job, in a thread.

        Raises UserError for what is refused, DrawingFailed, and Cancelled as soon as the client
        disconnects.
        """
        client = client_of(http)
        try:
            submitted = self.worker.submit([request], client)
        except ClientBusy as busy:
            raise busy if client.name else ClientBusy(f"{busy}{SHARED_ADDRESS}") from busy
        return await read_in_thread(http, submitted, lambda job: read(job, request), self._waiters)


async def read_in_thread(
    http: HttpRequest, submitted: Job, read: Callable[[Job], Read], waiters: CapacityLimiter
) -> Read:
    """What `read` makes of a job, in one of the threads that wait. Raises as `Drawings.drawn`."""
    with submitted as job:
        disconnect = asyncio.create_task(_cancel_on_disconnect(http, job))
        try:
            return await to_thread.run_sync(read, job, limiter=waiters)
        except Unsuitable:
            raise
        except UserError as error:
            raise DrawingFailed(str(error)) from error
        finally:
            disconnect.cancel()


async def answered(
    answer: Awaitable[Response], body_of: Callable[[UserError, int], dict]
) -> Response:
    """The answer, or that to a refusal, with the body that `body_of` gives it."""
    try:
        return await answer
    except (ClientDisconnect, Cancelled):
        return Response()  # to nobody
    except UserError as error:
        status = status_of(error)
        headers = {"Retry-After": str(RETRY_SECONDS)} if status == 429 else None
        return JSONResponse(body_of(error, status), status, headers)


def status_of(error: UserError) -> int:
    if isinstance(error, Refusal):
        return error.status
    statuses = ((Busy, 429), (TooManyPictures, 503), (DrawingFailed, 500))
    return next((status for kind, status in statuses if isinstance(error, kind)), 400)


def base64_png(picture: Picture) -> str:
    png = io.BytesIO()
    picture.save(png)
    return base64.b64encode(png.getvalue()).decode()


async def _cancel_on_disconnect(http: HttpRequest, job: Job) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
    job.cancel()
