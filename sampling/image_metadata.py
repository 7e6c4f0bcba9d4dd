"""The settings that a PNG carries: written with a picture, read back as the request that draws it.

Text chunk "sd-pokemon" holds them as JSON, "parameters" in the format of AUTOMATIC1111, which other
programs read and write too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL.PngImagePlugin import PngInfo

from core.bounded_json import JSONFault, loads
from core.errors import UserError
from core.paths import opened
from sampling.png_text import NotPNG, TextTooLong, texts
from sampling.prompt import escaped, has_marks
from sampling.request import MAX_PROMPT_CHARACTERS, SCHEDULERS, Request

KEYWORD = "sd-pokemon"  # of the text chunk that only our pictures have
NONE = "This picture carries no settings. Drop a PNG file that was drawn here."
# Pictures of versions with a single scheduler name its class.
FORMER_SCHEDULER, ITS_NAME = "DPMSolverMultistepScheduler", "DPM++ 2M"
A1111: dict[str, tuple[str, Callable[[str], int | float]]] = {
    "Steps": ("steps", int),
    "CFG scale": ("guidance_scale", float),
    "Seed": ("seed", int),
    "Variation seed": ("variation_seed", int),
    "Variation seed strength": ("variation_strength", float),
}
A1111_START = {  # written where a picture starts from more than the noise of its seed
    "Variation seed": "variation_seed",
    "Variation seed strength": "variation_strength",
    "Denoising strength": "strength",
}


def png_chunks(prompt: str, seed: int, settings: dict) -> PngInfo:
    """The text chunks of a picture's PNG file."""
    chunks = PngInfo()
    chunks.add_text("parameters", a1111_text(prompt, seed, settings))
    chunks.add_text(KEYWORD, json.dumps(settings))
    return chunks


def is_drawn_here(path: Path) -> bool:
    """Whether a file is a PNG with our own settings; False for what cannot be read as one."""
    try:
        with opened(path) as file:
            return KEYWORD in texts(file, [KEYWORD])
    except (OSError, NotPNG, TextTooLong):
        return False


def a1111_text(prompt: str, seed: int, settings: dict) -> str:
    s = settings
    # Other programs read brackets as weights, whether or not these were.
    written = str if s.get("prompt_weights", True) else escaped
    lines = [written(prompt)]
    if s["negative_prompt"]:
        lines.append(f"Negative prompt: {written(s['negative_prompt'])}")
    lines.append(
        f"Steps: {s['steps']}, Sampler: {s['scheduler']}, CFG scale: {s['guidance_scale']}, "
        f"Seed: {seed}, Size: {s['width']}x{s['height']}, Model: {s['model']}"
        + "".join(f", {theirs}: {s[ours]}" for theirs, ours in A1111_START.items() if ours in s)
    )
    return "\n".join(lines)


def request_of(png: bytes) -> Request:
    """The request that drew a PNG file, one of ours or of AUTOMATIC1111, without its init image,
    for which see `init_image_of`. The pixels are not decoded.

    Raises UserError for a file that is no PNG or has no settings, or settings out of bounds.
    """
    return request_from(settings_of(png))


def settings_of(png: bytes) -> dict:
    """The settings in a PNG file, unchecked. Raises UserError where there are none."""
    try:
        chunks = texts(BytesIO(png), PARSERS)
    except NotPNG as error:
        raise UserError("This is no PNG picture. Drop one that was drawn here.") from error
    except TextTooLong as error:
        raise UserError(NONE) from error
    for keyword, parse in PARSERS.items():
        if keyword in chunks:
            return parse(chunks[keyword])
    raise UserError(NONE)


def request_from(settings: dict) -> Request:
    """Settings as a request. Raises UserError where they are out of bounds."""
    known = {field.name for field in fields(Request)} - {"num_images", "init_image"}
    return Request(**{name: value for name, value in settings.items() if name in known})


def as_drawn(settings: dict) -> dict:
    """Settings with `prompt_weights` filled in: versions without weights do not state it, and took
    brackets literally."""
    prompts = (settings.get(name) for name in ("prompt", "negative_prompt"))
    texts = [text for text in prompts if isinstance(text, str)]
    # A longer one will be refused: it is not worth parsing.
    marked = any(len(text) <= MAX_PROMPT_CHARACTERS and has_marks(text) for text in texts)
    return {"prompt_weights": not marked} | settings


def init_image_of(settings: dict) -> str | None:
    """The SHA-256 of the init image that drew a picture; None where it had none."""
    described = settings.get("init_image")
    digest = described.get("sha256") if isinstance(described, dict) else None
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
    """Parse the prompt, the negative prompt, and a last line "Steps: 20, ..., Size: 512x512"."""
    prompts, _, last = text.rpartition("\n")
    prompt, _, negative_prompt = prompts.partition("\nNegative prompt: ")
    given = dict(part.strip().partition(": ")[::2] for part in last.split(","))
    if "Steps" not in given or not prompt:
        raise UserError(NONE)
    settings: dict[str, Any] = {"prompt": prompt, "negative_prompt": negative_prompt}
    try:
        settings |= {
            ours: number(given[name]) for name, (ours, number) in A1111.items() if name in given
        }
        sampler = f"{given.get('Sampler', '')} {given.get('Schedule type', '')}".strip()
        sampler = sampler.removesuffix(" Automatic")
        if sampler in SCHEDULERS:  # AUTOMATIC1111 has more
            settings["scheduler"] = sampler
        if "Size" in given:
            width, height = given["Size"].split("x")
            settings |= {"width": int(width), "height": int(height)}
    except ValueError as error:
        raise UserError(NONE) from error
    return settings


PARSERS = {KEYWORD: _json, "parameters": _a1111}  # by keyword, the most complete first
