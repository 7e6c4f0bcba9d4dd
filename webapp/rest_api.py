"""REST API: POST /api/generate, its documentation, health checks and metrics."""

import json
import shlex
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from core.errors import UserError
from core.html import template
from core.paths import size
from sampling.few_steps import filled
from sampling.image import Picture
from sampling.init_image import MAX_INIT_BYTES, InitImage
from sampling.request import Request, with_seeds
from webapp.api_drawings import Drawings, answered, base64_png
from webapp.http_security import read_drawing, read_json
from webapp.job import Job, PromptTruncated
from webapp.openapi import (
    PUBLIC_ROUTE,
    REFUSALS,
    REQUEST_BODY,
    Answer,
    Image,
    error_responses,
    request_schema,
    require_password,
)
from webapp.ui.prompt_suggestions import proposals

KEYS = [field.name for field in fields(Request)]
POST_ONLY = "This address draws what is sent by POST. See /api."
API_PAGE = template("webapp/templates/api.html")
PLAIN_TEXT = {"text/plain": {"schema": {"type": "string"}}}
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
# HELP drawing_live_pictures_total Pictures drawn while somebody typed.
# TYPE drawing_live_pictures_total counter
drawing_live_pictures_total {live}
# HELP drawing_seconds_total Seconds spent drawing, in jobs that are over.
# TYPE drawing_seconds_total counter
drawing_seconds_total {seconds:.3f}
# HELP drawing_jobs_waiting Jobs that wait, without the one that is being drawn.
# TYPE drawing_jobs_waiting gauge
drawing_jobs_waiting {waiting}
"""


class RestAPI:
    """The HTTP routes beside the page, described by FastAPI."""

    def __init__(self, drawings: Drawings, is_ready: Callable[[], bool]):
        """`is_ready`: whether the model is loaded."""
        self._drawings, self._worker, self._is_ready = drawings, drawings.worker, is_ready
        router = APIRouter(default_response_class=PlainTextResponse)
        router.add_api_route(
            "/api/generate", self.generate, methods=["POST"], openapi_extra=REQUEST_BODY,
            summary="Draw pictures from words", response_description="The pictures",
            response_class=JSONResponse, response_model=Answer,
            responses=error_responses(REFUSALS),
        )  # fmt: skip
        router.add_api_route(
            "/healthz", self.healthz, openapi_extra=PUBLIC_ROUTE,
            summary="Is the server there?", response_description="It is.",
        )  # fmt: skip
        router.add_api_route(
            "/readyz", self.readyz, openapi_extra=PUBLIC_ROUTE,
            summary="Is the model open?", response_description="It is.",
            responses={503: {"description": "Not yet.", "content": PLAIN_TEXT}},
        )  # fmt: skip
        router.add_api_route(
            "/metrics", self.metrics,
            summary="How much was drawn, for Prometheus",
            response_description="Text exposition format 0.0.4",
        )  # fmt: skip
        self._document = get_openapi(title="Pictures from words", version="1", routes=router.routes)
        for route in router.routes:
            # As Starlette's own routes do; FastAPI would have described it.
            if isinstance(route, APIRoute) and route.methods == {"GET"}:
                route.methods = {"GET", "HEAD"}
        self.routes = [
            *router.routes,
            Route("/api/generate", _error(POST_ONLY, 405, {"Allow": "POST"})),
            Route("/openapi.json", self._show_document),
            Route("/api", self._show_page),
        ]

    def document(self, has_password: bool) -> dict:
        """The OpenAPI document."""
        document = deepcopy(self._document)
        document["components"]["schemas"]["Request"] = request_schema(self._worker.limits)
        if has_password:
            require_password(document)
        return document

    async def healthz(self) -> str:
        return "ok"

    async def readyz(self) -> Response:
        if self._is_ready():
            return PlainTextResponse("ready")
        return PlainTextResponse("The model is being opened. Try again soon.", 503)

    async def metrics(self) -> Response:
        counts = self._worker.counts
        text = METRICS.format(
            **{name: counts[name] for name in ("done", "failed", "cancelled", "refused")},
            pictures=counts["pictures"],
            live=counts["live"],
            seconds=self._worker.drawing_seconds,
            waiting=self._worker.waiting,
        )
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def _show_document(self, http: HttpRequest) -> Response:
        return JSONResponse(self.document(_has_password(http)))

    async def _show_page(self, http: HttpRequest) -> Response:
        example = proposals(self._worker.generator)[0]
        return show_api(http, self.document(_has_password(http)), example)

    async def generate(self, http: HttpRequest) -> Response:
        return await answered(self._answer(http), lambda error, _: {"error": str(error)})

    async def _answer(self, http: HttpRequest) -> Response:
        values = await read_json(http, read_drawing)
        values = filled(values, self._worker.generator.draws)
        request = await decoded_request(values, self._drawings.decoders)
        body = await self._drawings.drawn(http, request, _draw)
        return Response(body, media_type="application/json")


def show_api(request: HttpRequest, described: dict, example: str) -> Response:
    """The documentation page for people; `example`: a prompt."""
    properties = described["components"]["schemas"]["Request"]["properties"]
    page = API_PAGE.render(
        url=str(request.url.replace(path="/api/generate", query="")),
        has_password="security" in described,
        body=shlex.quote(json.dumps({"prompt": example, "seed": 7})),
        settings=[(key, _range(value), value["description"]) for key, value in properties.items()],
    )
    return HTMLResponse(page)


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


async def decoded_request(values: dict, decoders: CapacityLimiter) -> Request:
    """As `request_of`; an init image is decoded in a thread, while others are served."""
    if not values.get("init_image"):
        return request_of(values)
    return await to_thread.run_sync(request_of, values, limiter=decoders)


def request_of(values: dict) -> Request:
    """The Request of a JSON object, with a random seed where it has none. Raises UserError."""
    for key in values:
        if key not in KEYS:
            raise UserError(f"There is no {key!r:.40}. The keys are {', '.join(KEYS)}.")
    if (picture := values.get("init_image")) is not None:
        values = values | {"init_image": InitImage.from_base64(picture)}
    return Request(**with_seeds({"prompt": "", **values}))


def _draw(job: Job, request: Request) -> bytes:
    """Wait for the job and return the JSON response. Raises what the job raises."""
    settings, images, unread = request.settings, [], ""
    for event in job:
        if isinstance(event, PromptTruncated):
            unread = event.words
        elif isinstance(event, Picture):
            images.append(Image(image=base64_png(event), seed=event.seed, problem=event.problem))
            settings |= event.settings
    settings |= {name: getattr(request, name) for name in ("seed", "variation_seed")}  # the first's
    return Answer(images=images, settings=settings, unread=unread).model_dump_json().encode()


def _has_password(http: HttpRequest) -> bool:
    return getattr(http.app.state, "has_password", False)


def _error(sentence: object, status: int, headers: dict | None = None) -> Response:
    return JSONResponse({"error": str(sentence)}, status, headers)
