"""The settings that a picture carries, as the request that draws it again."""

from __future__ import annotations

import re
from dataclasses import fields
from io import BytesIO

from core.bounded_json import JSONFault, loads
from core.errors import UserError
from sampling.png_text import NotPNG, TextTooLong, texts
from sampling.prompt import has_marks
from sampling.request import MAX_PROMPT_CHARACTERS, SCHEDULERS, Request

NONE = "This picture carries no settings. Drop a PNG file that was drawn here."
# Pictures from before there was a choice of schedulers name the class of the only one.
FORMER_SCHEDULER, ITS_NAME = "DPMSolverMultistepScheduler", "DPM++ 2M"
A1111 = {
    "Steps": ("steps", int),
    "CFG scale": ("guidance_scale", float),
    "Seed": ("seed", int),
    "Variation seed": ("variation_seed", int),
    "Variation seed strength": ("variation_strength", float),
}


def request_of(png: bytes) -> Request:
    """What drew the picture in a PNG file: one of ours, or of AUTOMATIC1111.

    Its pixels are not looked at. An init image is not in it: see `init_image_of`. Raises UserError
    where it is no such file, carries no settings, or some that are out of bounds.
    """
    return request_from(settings_of(png))


def settings_of(png: bytes) -> dict:
    """Likewise, before they are judged."""
    try:
        chunks = texts(BytesIO(png), READERS)
    except NotPNG as error:
        raise UserError("This is no PNG picture. Drop one that was drawn here.") from error
    except TextTooLong as error:
        raise UserError(NONE) from error
    settings = next((read(chunks[name]) for name, read in READERS.items() if name in chunks), None)
    if settings is None:
        raise UserError(NONE)
    return settings


def request_from(settings: dict) -> Request:
    """Raises UserError where they are out of bounds."""
    known = {field.name for field in fields(Request)} - {"num_images", "init_image"}
    return Request(**{name: value for name, value in settings.items() if name in known})


def as_drawn(settings: dict) -> dict:
    """Settings from before there were weights in prompts do not say whether to read them: what
    would be marks of some was words then."""
    prompts = (settings.get(name) for name in ("prompt", "negative_prompt"))
    texts = [text for text in prompts if isinstance(text, str)]
    # A longer one is refused, and is not worth the time.
    marked = any(len(text) <= MAX_PROMPT_CHARACTERS and has_marks(text) for text in texts)
    return {"prompt_weights": not marked} | settings


def init_image_of(settings: dict) -> str | None:
    """The SHA-256 of the picture that is needed to draw this again; None where none is."""
    named = settings.get("init_image")
    digest = named.get("sha256") if isinstance(named, dict) else None
    return digest if isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) else None


def _json(text: str) -> dict:
    try:
        settings = loads(text)
    except JSONFault as error:
        raise UserError(NONE) from error
    if not isinstance(settings, dict) or "prompt" not in settings:
        raise UserError(NONE)
    if settings.get("scheduler") == FORMER_SCHEDULER:
        settings["scheduler"] = ITS_NAME
    return as_drawn(settings)


def _a1111(text: str) -> dict:
    """Lines of prompt, one of what to avoid, one of settings: "Steps: 20, ..., Size: 512x512"."""
    words, _, last = text.rpartition("\n")
    prompt, _, negative_prompt = words.partition("\nNegative prompt: ")
    given = dict(part.strip().partition(": ")[::2] for part in last.split(","))
    if "Steps" not in given or not prompt:
        raise UserError(NONE)
    settings = {"prompt": prompt, "negative_prompt": negative_prompt}
    try:
        settings |= {
            ours: kind(given[name]) for name, (ours, kind) in A1111.items() if name in given
        }
        sampler = f"{given.get('Sampler', '')} {given.get('Schedule type', '')}".strip()
        sampler = sampler.removesuffix(" Automatic")
        if sampler in SCHEDULERS:  # they have more
            settings["scheduler"] = sampler
        if "Size" in given:
            width, height = given["Size"].split("x")
            settings |= {"width": int(width), "height": int(height)}
    except ValueError as error:
        raise UserError(NONE) from error
    return settings


READERS = {"sd-pokemon": _json, "parameters": _a1111}  # by keywords, the best first
