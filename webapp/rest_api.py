"""The routes beside the page: draw by a POST, what the API is, how the server is doing."""

import asyncio
import base64
import html
import io
import json
import shlex
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from string import Template

from anyio import CapacityLimiter, to_thread
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from core.errors import UserError
from core.paths import size
from sampling.image import Picture
from sampling.init_image import MAX_INIT_BYTES, MAX_LOOKED_AT, InitImage, TooManyPictures
from sampling.request import Cancelled, Request, with_seeds
from webapp.client_address import HEADER, client_of
from webapp.http_security import Refusal, read_drawing, read_json
from webapp.limits import Limits
from webapp.openapi import document
from webapp.queue import MAX_WAITING_JOBS, Busy, ClientBusy
from webapp.ui.prompt_suggestions import proposals
from webapp.worker import TOGETHER, Job, PromptTruncated, Worker

RETRY_SECONDS = 60  # as the sentence of a full line says
LOOKERS = 2 * MAX_LOOKED_AT  # threads; those that find no place are free again at once
KEYS = [field.name for field in fields(Request)]
PASSWORD_OPTION = """
  -H "Authorization: Bearer $PASSWORD" \\"""
SHARED_ADDRESS = f" A program that names itself in the header {HEADER} has places of its own."
API_PAGE = Template(Path(__file__).with_name("api.html").read_text(encoding="utf-8"))
METRICS = """\
# HELP drawing_jobs_total Jobs that are over, by how they ended.
# TYPE drawing_jobs_total counter
drawing_jobs_total{{outcome="done"}} {done}
drawing_jobs_total{{outcome="failed"}} {failed}
drawing_jobs_total{{outcome="cancelled"}} {cancelled}
drawing_jobs_total{{outcome="refused"}} {refused}
# HELP drawing_pictures_total Pictures drawn.
# TYPE drawing_pictures_total counter
drawing_pictures_total {pictures}
# HELP drawing_seconds_total Seconds spent drawing, in jobs that are over.
# TYPE drawing_seconds_total counter
drawing_seconds_total {seconds:.3f}
# HELP drawing_jobs_waiting Jobs that wait, without the one that is being drawn.
# TYPE drawing_jobs_waiting gauge
drawing_jobs_waiting {waiting}
"""


def routes(worker: Worker, is_ready: Callable[[], bool]) -> list[Route]:
    """`is_ready`: whether the model is open."""
    limits = getattr(worker, "limits", Limits())

    example = proposals(worker.generator)[0]

    def described(request: HttpRequest) -> dict:
        return document(limits, getattr(request.app.state, "has_password", False))

    async def healthz(_: HttpRequest) -> Response:
        return PlainTextResponse("ok")

    async def readyz(_: HttpRequest) -> Response:
        if is_ready():
            return PlainTextResponse("ready")
        return PlainTextResponse("The model is being opened. Try again soon.", 503)

    async def metrics(_: HttpRequest) -> Response:
        ends = {name: worker.counts[name] for name in ("done", "failed", "cancelled", "refused")}
        text = METRICS.format(
            **ends,
            pictures=worker.counts["pictures"],
            seconds=worker.drawing_seconds,
            waiting=worker.waiting,
        )
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/openapi.json", lambda request: JSONResponse(described(request))),
        Route("/api", lambda request: show_api(request, described(request), example)),
        Route("/api/generate", GenerateRoute(worker)),
    ]


def show_api(request: HttpRequest, described: dict, example: str) -> Response:
    """The API in words, for people; `example`: a prompt."""
    rows = [
        f"<tr><td><code>{html.escape(key)}</code></td>"
        f"<td>{html.escape(_range(value))}</td><td>{html.escape(value['description'])}</td></tr>"
        for key, value in described["components"]["schemas"]["Request"]["properties"].items()
    ]
    url = html.escape(str(request.url.replace(path="/api/generate", query="")))
    password = PASSWORD_OPTION if "security" in described else ""
    body = html.escape(shlex.quote(json.dumps({"prompt": example, "seed": 7})), quote=False)
    parts = {"url": url, "password": password, "body": body, "rows": "\n".join(rows)}
    return HTMLResponse(API_PAGE.substitute(parts))


def _range(schema: dict) -> str:
    if "enum" in schema:
        return ", ".join(schema["enum"])
    if schema["type"] == "boolean":
        return "true or false"
    if "minimum" in schema:
        return f"{schema['minimum']} to {schema['maximum']}"
    if "contentEncoding" in schema:
        return f"base64 of up to {size(MAX_INIT_BYTES)}"
    return f"up to {schema['maxLength']:,} characters"


class GenerateRoute:
    """ASGI application of POST /api/generate: JSON in, JSON with base64 pictures out."""

    def __init__(self, worker: Worker):
        self._worker = worker
        # Each job is followed in a thread, and so many can be under way; gradio has its own.
        self._followers = CapacityLimiter(MAX_WAITING_JOBS + TOGETHER)
        self._lookers = CapacityLimiter(LOOKERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._answer(HttpRequest(scope, receive))
        except (ClientDisconnect, Cancelled):
            return  # nobody is there to be answered
        except Refusal as refusal:
            answer = _error(refusal, refusal.status)
        except Busy as busy:
            answer = _error(busy, 429, {"Retry-After": str(RETRY_SECONDS)})
        except TooManyPictures as error:
            answer = _error(error, 503)
        except UserError as error:
            answer = _error(error, 400)
        await answer(scope, receive, send)

    async def _answer(self, http: HttpRequest) -> Response:
        if http.method != "POST":
            sentence = "This address draws what is sent by POST. See /api."
            return _error(sentence, 405, {"Allow": "POST"})
        values, client = await read_json(http, read_drawing), client_of(http)
        request = await asked(values, self._lookers)
        try:
            submitted = self._worker.submit([request], client)
        except ClientBusy as busy:
            raise busy if client.name else ClientBusy(f"{busy}{SHARED_ADDRESS}") from busy
        with submitted as job:
            try:
                return Response(
                    await self._follow(http, job, request), media_type="application/json"
                )
            except UserError as error:
                return _error(error, 500)

    async def _follow(self, http: HttpRequest, job: Job, request: Request) -> bytes:
        leaving = asyncio.create_task(_cancel_when_gone(http, job))
        try:
            return await to_thread.run_sync(_draw, job, request, limiter=self._followers)
        finally:
            leaving.cancel()


async def asked(values: dict, lookers: CapacityLimiter) -> Request:
    """As `request_of`; a picture is looked at in a thread, while others are answered."""
    if not values.get("init_image"):
        return request_of(values)
    return await to_thread.run_sync(request_of, values, limiter=lookers)


def request_of(values: dict) -> Request:
    """What a JSON object asks for; without a seed, a random one. Raises UserError."""
    for key in values:
        if key not in KEYS:
            raise UserError(f"There is no {key!r:.40}. The keys are {', '.join(KEYS)}.")
    if (picture := values.get("init_image")) is not None:
        values = values | {"init_image": InitImage.from_base64(picture)}
    return Request(**with_seeds({"prompt": "", **values}))


def _draw(job: Job, request: Request) -> bytes:
    """Wait for the job; the answer as JSON. Raises what the job raises."""
    settings, images, unread = request.settings, [], ""
    for event in job:
        if isinstance(event, PromptTruncated):
            unread = event.words
        elif isinstance(event, Picture):
            images.append({"image": _base64(event), "seed": event.seed, "problem": event.problem})
            settings |= event.settings
    settings |= {name: getattr(request, name) for name in ("seed", "variation_seed")}  # the first's
    return json.dumps({"images": images, "settings": settings, "unread": unread}).encode()


def _base64(picture: Picture) -> str:
    png = io.BytesIO()
    picture.save(png)
    return base64.b64encode(png.getvalue()).decode()


async def _cancel_when_gone(http: HttpRequest, job: Job) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
    job.cancel()


def _error(sentence: object, status: int, headers: dict | None = None) -> Response:
    return JSONResponse({"error": str(sentence)}, status, headers)
