"""Pictures while a visitor types: POST /live draws the words as they are by now, in few steps.

The page sends its settings whenever they change. What a visitor has sent before is then called off,
and nothing goes before a drawing that somebody has asked for.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

from anyio import CapacityLimiter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.errors import UserError
from core.images import jpeg_of
from sampling.image import PROBLEMS, Picture
from sampling.request import Cancelled, Request
from webapp.api_drawings import Drawings, answered, read_in_thread
from webapp.client_address import client_of
from webapp.http_security import Refusal, read_drawing, read_json
from webapp.job import Job, Step
from webapp.queue import MAX_LIVE_JOBS
from webapp.rest_api import decoded_request
from webapp.ui import strings
from webapp.ui.prompt_suggestions import proposals
from webapp.worker import APP_ITSELF, Worker

if TYPE_CHECKING:
    from sampling.generator import AppGenerator
    from sampling.variants import SlotGenerator

MAX_STEPS = 8  # where the model says nothing of how it draws in few
USUAL_SECONDS = 0.5  # a picture that takes less is drawn unless its visitor says otherwise
PROBES = 3  # pictures by which that is judged at first
JUDGED = 9  # later ones: the last
SMALL_SIDE, TRIED_SIDE = 256, 64  # pixels: what is larger is tried small before
JPEG = "image/jpeg"
# What a model's name and a request are made into; raises UserError where there is no such model.
Applied = Callable[[object, Request], "tuple[Request, SlotGenerator | None]"]


def in_few_steps(request: Request, draws: dict[str, Any]) -> Request:
    """One picture of it, by the settings of a model for few steps: see PictureGenerator."""
    settings = {"steps": min(request.steps, MAX_STEPS)} | draws
    return replace(request, num_images=1, cache_interval=1, **settings)


def live_drawer(
    request: Request, own: AppGenerator, other: SlotGenerator | None = None
) -> tuple[Request, SlotGenerator | None]:
    """The live request, and what draws it: `other` where that was chosen, else the app's model with
    its LoRA for few steps where there is one that can be opened, else (None) the app's model."""
    if other or not own.fast or own.fast.failed:
        return in_few_steps(request, (other or own).draws), other
    return replace(in_few_steps(request, own.fast.draws), lora_scale=1.0), own.fast


class Pace:
    """How long a live picture of the app's own model takes: the median of the last ones, as the
    processor may have been busy with something else for any one of them."""

    def __init__(self, worker: Worker):
        self._worker = worker
        self._seconds: deque[float] = deque(maxlen=JUDGED)
        self._measuring = threading.Lock()

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    @property
    def is_quick(self) -> bool | None:
        """Whether it takes less than USUAL_SECONDS; None while that is not known."""
        seconds = [*self._seconds]
        return median(seconds) < USUAL_SECONDS if seconds and len(seconds) >= PROBES else None

    def measure(self) -> None:
        """Draw a few pictures in a thread, as live ones: where it is not known, the model is open,
        and nobody else is at it."""
        known = self.is_quick is not None
        if known or not self._worker.generator.ready or not self._measuring.acquire(blocking=False):
            return
        threading.Thread(target=self._measure, name="pace", daemon=True).start()

    def _measure(self) -> None:
        try:
            generator = self._worker.generator
            request, fast = live_drawer(Request(proposals(generator)[0]), generator)
            small = replace(request, width=TRIED_SIDE, height=TRIED_SIDE)
            # One step of a large model may take half a minute: then it need not be tried.
            if (generator.size or 0) > SMALL_SIDE and median(
                self._probes(small, fast)
            ) > USUAL_SECONDS:
                self._seconds.extend([USUAL_SECONDS] * PROBES)
            else:
                self._seconds.extend(self._probes(request, fast))
        except (UserError, Cancelled):  # asked again by the next page
            pass
        finally:
            self._measuring.release()

    def _probes(self, request: Request, fast: SlotGenerator | None) -> list[float]:
        return [self._probe(request, fast) for _ in range(PROBES)]

    def _probe(self, request: Request, fast: SlotGenerator | None) -> float:
        """Seconds until the picture, or until it is clear that it takes too many."""
        with self._worker.submit_live(request, APP_ITSELF, fast) as job:
            for event in job:
                late = isinstance(event, Step) and event.done and job.seconds > USUAL_SECONDS
                if late or isinstance(event, Picture):
                    break
            return job.seconds


class LiveDrawings:
    """GET /live says whether the page should draw as one types; POST /live does."""

    def __init__(self, drawings: Drawings, applied: Applied):
        self._drawings, self._worker, self._applied = drawings, drawings.worker, applied
        self._waiters = CapacityLimiter(MAX_LIVE_JOBS + self._worker.max_active)
        self.pace = Pace(self._worker)
        self.routes = [
            Route("/live", self._tell, methods=["GET"]),
            Route("/live", self._draw, methods=["POST"]),
        ]

    async def _tell(self, http: HttpRequest) -> Response:
        self.pace.measure()
        return JSONResponse({"usual": self.pace.is_quick}, headers={"Cache-Control": "no-store"})

    async def _draw(self, http: HttpRequest) -> Response:
        return await answered(self._answer(http), lambda error, _: {"error": str(error)})

    async def _answer(self, http: HttpRequest) -> Response:
        """A picture; nothing (204) where there are no words, or newer ones have come."""
        client, values = client_of(http), await read_json(http, read_drawing)
        number = values.pop("number", 0)
        if type(number) is not int:
            raise Refusal(400, f"number is {number!r:.40}. Count the pictures.")
        model = values.pop("model", self._worker.generator.name)
        if str(values.get("prompt", "")).strip() == "":
            return Response(status_code=204)
        request = await decoded_request(values, self._drawings.decoders)
        request, other = self._applied(model, request)
        if other and not other.is_open:  # opening it would close what somebody else draws with
            raise Refusal(409, strings.LIVE_UNOPENED)
        own = self._worker.generator

        async def drawn() -> tuple[bytes, float]:
            live, drawer = live_drawer(request, own, other)
            job = self._worker.submit_live(live, client, drawer, number)
            try:
                return await read_in_thread(http, job, _picture_of, self._waiters)
            except UserError:
                if other or not drawer or not drawer.failed:
                    raise
            return await drawn()  # by the model itself, now and for later words

        try:
            picture, seconds = await drawn()
        except Cancelled:
            return Response(status_code=204)
        if not other and _is_usual(live_drawer(request, own)[0], own):
            self.pace.add(seconds)
        return Response(picture, media_type=JPEG, headers={"Cache-Control": "no-store"})


def _picture_of(job: Job) -> tuple[bytes, float]:
    """The picture of a job as a JPEG file, and how long it took. Raises UserError where it must not
    be shown."""
    for event in job:
        if isinstance(event, Picture):
            if event.problem:
                raise UserError(PROBLEMS[event.problem].format(seed=event.seed))
            return jpeg_of(event.image), job.seconds
    raise Cancelled


def _is_usual(request: Request, generator: AppGenerator) -> bool:
    """Whether a live request takes as long as those that Pace measures: of the model's size, and in
    as many passes of the UNet."""
    usual, _ = live_drawer(Request("usual"), generator)
    is_of_its_size = {request.width, request.height} <= {None, generator.size}
    return is_of_its_size and _passes(request) == _passes(usual)


def _passes(request: Request) -> int:
    """Of the UNet: one a step, two where it has guidance."""
    return request.denoising_steps + request.guided_steps
