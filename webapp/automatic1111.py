"""AUTOMATIC1111's HTTP API at /sdapi/v1, for programs that were written for it."""

import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from anyio import to_thread
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.errors import UserError
from sampling.image import PROBLEMS, Picture
from sampling.image_metadata import a1111_text
from sampling.request import SCHEDULERS, Cancelled, Request
from webapp.api_drawings import Drawings, answered, base64_png
from webapp.automatic1111_request import base64_of, check_settings, request_of
from webapp.client_address import client_of
from webapp.http_security import read_drawing, read_json
from webapp.job import Job, Step
from webapp.queue import Client

PREFIX = "/sdapi/v1"
EMPTY = (  # lists of what is not here, for programs that ask for them at the start
    "upscalers", "latent-upscale-modes", "sd-vae", "sd-modules", "loras", "hypernetworks",
    "prompt-styles", "face-restorers", "realesrgan-models", "extensions", "script-info",
)  # fmt: skip
NOBODY = "tunnel"  # the address of all who come through a public link: strangers to each other


class Ongoing:
    """A drawing that was asked for and is not over, as `progress` reports it."""

    def __init__(self, client: Client, job: Job):
        self.client, self._job = client, job
        self.started, self.is_interrupted = time.time(), False
        self.step = Step(0, 0)
        self.preview: Any = None

    @property
    def share(self) -> float:
        return self.step.done / self.step.total if self.step.total else 0.0

    def take(self, step: Step) -> None:
        self.step = step
        self.preview = step.preview[0] if step.preview else self.preview

    def interrupt(self) -> None:
        self.is_interrupted = True
        self._job.cancel()


class Automatic1111API:
    """The routes that programs use: drawing, progress, interruption, and lists of what there is."""

    def __init__(self, drawings: Drawings):
        self._drawings, self._generator = drawings, drawings.worker.generator
        self._ongoing: list[Ongoing] = []  # several threads append and remove
        draw, draw_from = (partial(self._draw, from_picture=f) for f in (False, True))
        self.routes = [
            _route("POST", "txt2img", draw),
            _route("POST", "img2img", draw_from),
            _route("GET", "progress", self._progress),
            _route("POST", "interrupt", self._interrupt),
            _route("POST", "options", self._set_options),
            _route("GET", "options", self._told(self._options)),
            _route("GET", "sd-models", self._told(self._models)),
            _route("GET", "samplers", self._told(_samplers)),
            _route("GET", "schedulers", self._told(_schedulers)),
            _route("GET", "scripts", self._told(lambda: {"txt2img": [], "img2img": []})),
            *(_route("GET", name, self._told(list)) for name in EMPTY),
        ]

    async def _draw(self, http: HttpRequest, from_picture: bool) -> Response:
        body = await read_json(http, read_drawing)
        read = partial(request_of, body, self._generator.name, from_picture)
        if from_picture:
            request = await to_thread.run_sync(read, limiter=self._drawings.decoders)
        else:
            request = read()
        answer = partial(self._answer, client_of(http), body)
        content = await self._drawings.drawn(http, request, answer)
        return Response(content, media_type="application/json")

    def _answer(self, client: Client, body: dict, job: Job, request: Request) -> bytes:
        """The response's body, made in the thread that waits: encoding pictures takes time."""
        pictures = self._read(client, job)
        images = [base64_png(p) for p in pictures] if body.get("send_images", True) else []
        parameters = {key: value for key, value in body.items() if key != "init_images"}
        info = json.dumps(_info(request, pictures, self._generator.name))
        return json.dumps({"images": images, "parameters": parameters, "info": info}).encode()

    def _read(self, client: Client, job: Job) -> list[Picture]:
        """The pictures of a job; those that are done where it is interrupted."""
        ongoing, pictures = Ongoing(client, job), []
        self._ongoing.append(ongoing)
        try:
            for event in job:
                if isinstance(event, Step):
                    ongoing.take(event)
                elif isinstance(event, Picture):
                    pictures.append(event)
        except Cancelled:
            if not ongoing.is_interrupted:
                raise
        finally:
            self._ongoing.remove(ongoing)
        return pictures

    def _of(self, http: HttpRequest) -> list[Ongoing]:
        """The drawings of a client, first the one that has come furthest."""
        client = client_of(http)
        if client.address == NOBODY and not client.name:
            return []
        own = [each for each in self._ongoing if each.client == client]
        return sorted(own, key=lambda each: -each.share)

    async def _progress(self, http: HttpRequest) -> Response:
        ongoing = self._of(http)
        skipped = http.query_params.get("skip_current_image", "").lower() in ("true", "1")
        return JSONResponse(_progress(ongoing, with_image=not skipped))

    async def _interrupt(self, http: HttpRequest) -> Response:
        for ongoing in self._of(http)[:1]:
            ongoing.interrupt()
        return JSONResponse({})

    async def _set_options(self, http: HttpRequest) -> Response:
        check_settings(await read_json(http), self._generator.name)
        return JSONResponse(None)

    def _told(self, facts: Callable[[], object]) -> Callable[[HttpRequest], Awaitable[Response]]:
        async def tell(_: HttpRequest) -> Response:
            return JSONResponse(facts())

        return tell

    def _options(self) -> dict:
        return {
            "sd_model_checkpoint": self._generator.name,
            "sd_checkpoint_hash": "",
            "sd_vae": "Automatic",
            "CLIP_stop_at_last_layers": 1,
            "samples_format": "png",
        }

    def _models(self) -> list[dict]:
        name = self._generator.name
        unknown = {"hash": None, "sha256": None, "config": None}
        return [{"title": name, "model_name": name, "filename": name, **unknown}]


def _route(method: str, name: str, endpoint: Callable[[HttpRequest], Awaitable[Response]]) -> Route:
    async def answer(http: HttpRequest) -> Response:
        return await answered(endpoint(http), _refusal)

    return Route(f"{PREFIX}/{name}", answer, methods=[method])


def _refusal(error: UserError, status: int) -> dict:
    """A refusal in AUTOMATIC1111's form; its clients show "detail", or the whole."""
    return {"error": str(error), "detail": str(error), "body": "", "errors": ""}


def _samplers() -> list[dict]:
    return [{"name": name, "aliases": [], "options": {}} for name in SCHEDULERS]


def _schedulers() -> list[dict]:
    unknown = {"aliases": None, "default_rho": -1, "need_inner_model": False}
    names = {"automatic": "Automatic", "uniform": "Uniform", "karras": "Karras"}
    return [{"name": name, "label": label, **unknown} for name, label in names.items()]


def _progress(ongoing: list[Ongoing], with_image: bool) -> dict:
    state: dict[str, Any] = {
        "skipped": False, "interrupted": False, "stopping_generation": False, "job": "",
        "job_count": 0, "job_timestamp": "0", "job_no": 0, "sampling_step": 0, "sampling_steps": 0,
    }  # fmt: skip
    idle = {"progress": 0.0, "eta_relative": 0.0, "state": state, "current_image": None,
            "textinfo": None}  # fmt: skip
    if not ongoing:
        return idle
    first = ongoing[0]
    state |= {
        "job": "drawing",
        "job_count": len(ongoing),
        "interrupted": first.is_interrupted,
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(first.started)),
        "sampling_step": first.step.done,
        "sampling_steps": first.step.total,
    }
    share = max(0.01, min(first.share, 1.0))  # 0 is for a server that has nothing to do
    passed = time.time() - first.started
    image = base64_of(first.preview) if with_image and first.preview else None
    return idle | {
        "progress": share,
        "eta_relative": passed / share - passed if first.share else 0.0,
        "current_image": image,
    }


def _info(request: Request, pictures: list[Picture], model: str) -> dict:
    """What AUTOMATIC1111 says of pictures; settings that were left to the model are filled in."""
    drawn = pictures[0].settings if pictures else request.settings
    count = len(pictures)
    problems = [PROBLEMS[p.problem].format(seed=p.seed) for p in pictures if p.problem]
    return {
        "prompt": request.prompt,
        "all_prompts": [request.prompt] * count,
        "negative_prompt": request.negative_prompt,
        "all_negative_prompts": [request.negative_prompt] * count,
        "seed": request.seed,
        "all_seeds": request.seeds[:count],
        "subseed": request.variation_seed,
        "all_subseeds": request.variation_seeds[:count],
        "subseed_strength": request.variation_strength,
        "width": drawn["width"],
        "height": drawn["height"],
        "sampler_name": request.scheduler,
        "cfg_scale": request.guidance_scale,
        "steps": request.steps,
        "batch_size": count,
        "denoising_strength": request.strength if request.init_image else None,
        "sd_model_name": model,
        "sd_model_hash": None,
        "index_of_first_image": 0,
        "infotexts": [a1111_text(p.prompt, p.seed, p.settings) for p in pictures],
        "clip_skip": 1,
        "comments": problems,
    }
