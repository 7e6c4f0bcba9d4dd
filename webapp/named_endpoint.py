"""The named API endpoint /generate, for gradio_client and MCP.

Client(url).predict("a red bicycle", seed=7, api_name="/generate")
"""

import inspect
from collections.abc import AsyncIterator, Callable
from typing import get_type_hints

import gradio as gr
from anyio import CapacityLimiter, to_thread

from core.errors import UserError
from sampling.image import PROBLEMS, Picture
from sampling.request import Cancelled, Request, size_note
from webapp.api_drawings import MAX_DECODERS
from webapp.client_address import client_of
from webapp.job import Event, Job, NotSaved, PromptTruncated, Step
from webapp.openapi import DESCRIPTIONS
from webapp.rest_api import KEYS, decoded_request
from webapp.ui import strings
from webapp.ui.image_store import ImageStore
from webapp.worker import Worker

NAME = "generate"
DESCRIPTION = "Draw pictures from words. Returns PNG files, and the settings that drew them."


def add_endpoint(worker: Worker, drawings: ImageStore) -> None:
    """Add the endpoint; to be called within a `gr.Blocks`. Its parameters are Request's fields."""
    gr.api(_function(worker, drawings), api_name=NAME, api_description=DESCRIPTION)


def _function(worker: Worker, drawings: ImageStore) -> Callable:
    decoders = CapacityLimiter(MAX_DECODERS)

    async def generate(visitor: gr.Request, *values) -> AsyncIterator[tuple[list, dict]]:
        try:
            request = await decoded_request(dict(zip(KEYS, values, strict=True)), decoders)
            client = client_of(visitor, visitor.session_hash)
            # A generator: gradio closes it at the first event after the client has disconnected.
            async for update in _updates(worker.submit([request], client), request, drawings):
                yield update
        except Cancelled as error:
            raise gr.Error("The drawing was cancelled.", print_exception=False) from error
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    parameters = _parameters()
    signature = inspect.Signature(parameters, return_annotation=tuple[list, dict])
    generate.__signature__ = signature  # type: ignore[attr-defined]  # as `inspect` documents it
    generate.__annotations__ = {p.name: p.annotation for p in parameters}
    lines = [f"    {name}: {DESCRIPTIONS.get(name, name)}" for name in KEYS]
    generate.__doc__ = "\n".join([DESCRIPTION, "", "Args:", *lines])
    return generate


def _parameters() -> list[inspect.Parameter]:
    """The HTTP request, then Request's fields: seeds may be None for random ones, and a picture is
    its file in base64."""
    kind, types = inspect.Parameter.POSITIONAL_OR_KEYWORD, get_type_hints(Request)
    defaults = {name: getattr(Request, name, inspect.Parameter.empty) for name in KEYS}
    for name in ("seed", "variation_seed"):
        types[name], defaults[name] = int | None, None
    types["init_image"] = str | None
    return [
        inspect.Parameter("visitor", kind, annotation=gr.Request),
        *(inspect.Parameter(n, kind, default=defaults[n], annotation=types[n]) for n in KEYS),
    ]


async def _updates(
    job: Job, request: Request, drawings: ImageStore
) -> AsyncIterator[tuple[list, dict]]:
    """The job's progress, and at the end the files and the settings, with notes on problems."""
    note = size_note(request.width, request.height, job.generator.size)
    files: list[dict] = []
    settings: dict = {}
    notes = [note] if note else []
    async for event in _events(job):
        if isinstance(event, Step):
            yield [], {"step": event.done, "steps": event.total}
        elif isinstance(event, PromptTruncated):
            notes.append(strings.PROMPT_UNREAD.format(unread=event.words))
        elif isinstance(event, NotSaved):
            notes.append(event.sentence)
        elif isinstance(event, Picture):
            settings |= event.settings
            if event.problem:
                notes.append(PROBLEMS[event.problem].format(seed=event.seed))
            else:
                path = drawings.keep(event.file_name, event.save)
                files.append(gr.FileData(path=str(path)).model_dump())
    yield files, settings | {"seed": request.seed, "seeds": request.seeds, "notes": notes}


async def _events(job: Job) -> AsyncIterator[Event]:
    """A job's events, each waited for in a thread that is abandoned on cancellation."""
    events = iter(job)
    try:
        while event := await to_thread.run_sync(next, events, None, abandon_on_cancel=True):
            yield event
    finally:
        job.cancel()
