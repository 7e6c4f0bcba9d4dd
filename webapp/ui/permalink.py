"""Settings in the page's own address: a link that fills them in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

from core.errors import UserError
from sampling.image_metadata import as_drawn
from sampling.request import UNUSUAL, Request
from webapp.ui import strings

LINKED = (  # settings that an address may name
    "prompt", "negative_prompt", "seed", "num_images", "steps", "guidance_scale", "width", "height",
    "scheduler", "prompt_weights", "lora_scale", "guidance_stop", "cache_interval",
    "variation_seed", "variation_strength", "strength",
)  # fmt: skip
TEXTS = ("prompt", "negative_prompt", "scheduler")
FRACTIONS = ("guidance_scale", "lora_scale", "guidance_stop", "variation_strength", "strength")


def link_to(request: Request, model: str = "", init_image: str | None = None) -> str:
    """The part of the address from its question mark on.

    `model`: the name of another model than the page's own, which draws it. `init_image`: the
    SHA-256 of what it started from, where the request does not hold the image.
    """
    init_image = init_image_digest(request, init_image)
    settings = {name: getattr(request, name) for name in LINKED}
    if not request.variation_strength:
        del settings["variation_seed"], settings["variation_strength"]
    if init_image:
        settings["init_image"] = init_image
    else:
        del settings["strength"]
    named = {
        name: _short(value)
        for name, value in settings.items()
        if value not in ("", None) and value != UNUSUAL.get(name)
    }
    weights = named.pop("prompt_weights")
    if weights != as_drawn(named)["prompt_weights"]:  # what a link without it means
        named["prompt_weights"] = json.dumps(weights)
    if model:
        named["model"] = model
    return f"?{urlencode(named)}"


def linked(query: Mapping[str, str] | str) -> Request | None:
    """The request of an address, without its init image; None where it names no setting.

    `query`: the address's parameters, or what `link_to` wrote. Raises UserError.
    """
    query = _parameters(query)
    given = {name: _value(name, query[name]) for name in LINKED if name in query}
    if not given:
        return None
    if "prompt" not in given:
        raise UserError(strings.LINK_WITHOUT_PROMPT)
    return Request(**as_drawn(given))


def linked_init_image(query: Mapping[str, str] | str) -> str | None:
    """The SHA-256 of the image that a linked drawing started from, if any. Raises UserError for
    what is none."""
    digest = _parameters(query).get("init_image", "")
    if digest and not re.fullmatch("[0-9a-f]{64}", digest):
        raise UserError(strings.LINK_INIT_IMAGE)
    return digest or None


def linked_model(query: Mapping[str, str] | str) -> str:
    """The name of the model of a link; empty for the page's own."""
    return _parameters(query).get("model", "")


def init_image_digest(request: Request, known: str | None = None) -> str | None:
    """The SHA-256 of a request's init image; `known`: where the request does not hold it."""
    return request.init_image.sha256 if request.init_image else known


def _short(value: object) -> object:
    """5 for 5.0: sliders send either, and a drawing has one link."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _parameters(query: Mapping[str, str] | str) -> Mapping[str, str]:
    return dict(parse_qsl(query.removeprefix("?"))) if isinstance(query, str) else query


def _value(name: str, text: str) -> object:
    """A setting as an address writes it; a malformed number is left for Request to refuse."""
    if name in TEXTS:
        return text
    if name == "prompt_weights":
        return {"true": True, "false": False}.get(text, text)
    try:
        return float(text) if name in FRACTIONS else int(text)
    except ValueError:
        return text
