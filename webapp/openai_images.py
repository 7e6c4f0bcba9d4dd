"""OpenAI's HTTP API for pictures at /v1, for programs that were written for it."""

import json
import re
import time
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.errors import UserError
from sampling.few_steps import filled
from sampling.image import PROBLEMS, Picture
from sampling.request import Request, Unsuitable, with_seeds
from webapp.api_drawings import Drawings, answered, base64_png
from webapp.http_security import Refusal, read_drawing, read_json
from webapp.job import Job
from webapp.limits import MAX_OPENAI_IMAGES

# Keys of ours, for clients that can send more: `extra_body` of OpenAI's own.
EXTRA = ("negative_prompt", "seed", "steps", "guidance_scale", "scheduler")
WITHOUT_EFFECT: dict[str, tuple] = {  # the values that ask for what is drawn anyway, beside null
    "background": ("auto", "opaque"), "output_format": ("png",), "output_compression": (100,),
    "partial_images": (0,), "quality": ("auto", "standard"), "response_format": ("b64_json",),
    "stream": (False,),
}  # fmt: skip
IGNORED = ("moderation", "safety_identifier", "user")  # about the one who asks, not the picture
KEYS = ("prompt", "model", "n", "size", *WITHOUT_EFFECT, *IGNORED, *EXTRA)
TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class NoSuchModel(Refusal):
    """A request for a model other than the one that is served."""


class OpenAIImagesAPI:
    """POST /v1/images/generations and GET /v1/models."""

    def __init__(self, drawings: Drawings):
        self._drawings, self._generator = drawings, drawings.worker.generator
        self.routes = [
            Route("/v1/images/generations", self.generate, methods=["POST"]),
            Route("/v1/models", self.models),
        ]

    async def models(self, _: HttpRequest) -> Response:
        about = {"object": "model", "created": 0, "owned_by": "sd-pokemon"}
        return JSONResponse({"object": "list", "data": [{"id": self._generator.name, **about}]})

    async def generate(self, http: HttpRequest) -> Response:
        return await answered(self._answer(http), _refusal)

    async def _answer(self, http: HttpRequest) -> Response:
        body = filled(await read_json(http, read_drawing), self._generator.draws)
        request = request_of(body, self._generator.name)
        content = await self._drawings.drawn(http, request, _draw)
        return Response(content, media_type="application/json")


def request_of(body: dict, model: str) -> Request:
    """The request of a body. Raises UserError for a key or a value that is not to be had here."""
    for key in body:
        if key not in KEYS:
            raise UserError(f"Unknown parameter: {key!r:.40}. There are {', '.join(KEYS)}.")
    given = {key: value for key, value in body.items() if value is not None}
    for key, neutral in WITHOUT_EFFECT.items():
        if given.get(key, neutral[0]) not in neutral:
            known = " or ".join(map(repr, neutral))
            raise UserError(f"{key} is {given[key]!r:.40}. Give {known}, or leave it out.")
    if given.get("model", model) != model:
        raise NoSuchModel(404, f"The model {given['model']!r:.80} is not here. There is {model!r}.")
    # Words are words there: brackets weigh nothing.
    values: dict[str, Any] = {"prompt": given.get("prompt", ""), "prompt_weights": False}
    values |= {key: given[key] for key in EXTRA if key in given}
    values |= {"num_images": _count_of(given.get("n", 1)), **_size_of(given.get("size", "auto"))}
    return Request(**with_seeds(values))


def _count_of(n: object) -> int:
    if type(n) is not int or not 1 <= n <= MAX_OPENAI_IMAGES:
        raise UserError(f"n is {n!r:.40}. Give a whole number from 1 to {MAX_OPENAI_IMAGES}.")
    return n


def _size_of(size: object) -> dict[str, int]:
    if size == "auto":
        return {}
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size) if isinstance(size, str) else None
    if not found:
        raise UserError(f"size is {size!r:.40}. Give one such as '512x512', or 'auto'.")
    return {"width": int(found[1]), "height": int(found[2])}


def _draw(job: Job, _: Request) -> bytes:
    """Wait for the job and return the response's body. Raises what the job raises."""
    pictures = [event for event in job if isinstance(event, Picture)]
    for picture in pictures:
        if picture.problem:
            raise Unsuitable(PROBLEMS[picture.problem].format(seed=picture.seed))
    drawn = pictures[0].settings
    answer = {
        "created": int(time.time()),
        "data": [{"b64_json": base64_png(picture)} for picture in pictures],
        "output_format": "png",
        "size": f"{drawn['width']}x{drawn['height']}",
    }
    return json.dumps(answer).encode()


def _refusal(error: UserError, status: int) -> dict:
    """A refusal in OpenAI's form."""
    usual = "server_error" if status >= 500 else "invalid_request_error"
    code = "model_not_found" if isinstance(error, NoSuchModel) else None
    about = {"type": TYPES.get(status, usual), "param": None, "code": code}
    return {"error": {"message": str(error), **about}}
