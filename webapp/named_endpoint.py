"""The one function of the page that programs may call by its name, with gradio_client or MCP.

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
from webapp.client_address import client_of
from webapp.openapi import DESCRIPTIONS
from webapp.rest_api import KEYS, LOOKERS, asked
from webapp.ui import strings
from webapp.ui.image_store import ImageStore
from webapp.worker import Event, Job, NotSaved, PromptTruncated, Step, Worker

NAME = "generate"
DESCRIPTION = "Draw pictures from words. Returns PNG files, and the settings that drew them."


def add_endpoint(worker: Worker, drawings: ImageStore) -> None:
    """Within a `gr.Blocks`. Its parameters are the fields of Request."""
    gr.api(_function(worker, drawings), api_name=NAME, api_description=DESCRIPTION)


def _function(worker: Worker, drawings: ImageStore) -> Callable:
    lookers = CapacityLimiter(LOOKERS)

    async def generate(visitor: gr.Request, *values) -> AsyncIterator[tuple[list, dict]]:
        try:
            request = await asked(dict(zip(KEYS, values, strict=True)), lookers)
            client = client_of(visitor, visitor.session_hash)
            # A generator: gradio leaves it at the first event after its client is gone.
            async for told in _follow(worker.submit([request], client), request, drawings):
                yield told
        except Cancelled as error:
            raise gr.Error("The drawing was cancelled.", print_exception=False) from error
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from error

    parameters = _parameters()
    generate.__signature__ = inspect.Signature(parameters, return_annotation=tuple[list, dict])
    generate.__annotations__ = {p.name: p.annotation for p in parameters}
    lines = [f"    {name}: {DESCRIPTIONS.get(name, name)}" for name in KEYS]
    generate.__doc__ = "\n".join([DESCRIPTION, "", "Args:", *lines])
    return generate


def _parameters() -> list[inspect.Parameter]:
    """The visitor, then what gradio asks for by name; without a seed it is random, and a picture
    is its file in base64."""
    kind, types = inspect.Parameter.POSITIONAL_OR_KEYWORD, get_type_hints(Request)
    defaults = {name: getattr(Request, name, inspect.Parameter.empty) for name in KEYS}
    for name in ("seed", "variation_seed"):
        types[name], defaults[name] = int | None, None
    types["init_image"] = str | None
    return [
        inspect.Parameter("visitor", kind, annotation=gr.Request),
        *(inspect.Parameter(n, kind, default=defaults[n], annotation=types[n]) for n in KEYS),
    ]


async def _follow(
    job: Job, request: Request, drawings: ImageStore
) -> AsyncIterator[tuple[list, dict]]:
    """How far it is, and at the end the files and the settings, with what went wrong in words."""
    told = size_note(request.width, request.height, job.generator.size)
    files, settings, notes = [], {}, [told] if told else []
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
    """Of a job, waited for in a thread that is left behind when somebody cancels."""
    events = iter(job)
    try:
        while event := await to_thread.run_sync(next, events, None, abandon_on_cancel=True):
            yield event
    finally:
        job.cancel()
