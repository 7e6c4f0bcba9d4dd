"""Settings in the page's own address: a link that fills the page in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

from core.errors import UserError
from sampling.image_metadata import as_drawn
from sampling.request import Request
from webapp.ui import strings

LINKED = (  # settings that an address may name
    "prompt", "negative_prompt", "seed", "num_images", "steps", "guidance_scale", "width", "height",
    "scheduler", "prompt_weights", "variation_seed", "variation_strength", "strength",
)  # fmt: skip
FRACTIONS = ("guidance_scale", "variation_strength", "strength")


def link_to(request: Request, model: str = "") -> str:
    """What comes after the page's address, from its question mark on. `model`: which of those that
    the page offers draws it; empty: the page's own."""
    settings = {name: getattr(request, name) for name in LINKED}
    for name in ("variation_seed", "variation_strength", "strength"):
        if name not in request.start:
            del settings[name]
    if request.init_image:
        settings["init_image"] = request.init_image.sha256
    named = {name: value for name, value in settings.items() if value not in ("", None)}
    weights = named.pop("prompt_weights")
    if weights != as_drawn(named)["prompt_weights"]:  # what a link without it means
        named["prompt_weights"] = json.dumps(weights)
    if model:
        named["model"] = model
    return f"?{urlencode(named)}"


def linked(query: Mapping[str, str] | str) -> Request | None:
    """The request that an address asks for; None where it names no setting. Raises UserError.

    `query`: its settings, or what `link_to` wrote.
    """
    query = _settings(query)
    given = {name: _read(name, query[name]) for name in LINKED if name in query}
    if not given:
        return None
    if "prompt" not in given:
        raise UserError(strings.LINK_WITHOUT_PROMPT)
    return Request(**as_drawn(given))


def init_image_of(query: Mapping[str, str] | str) -> str | None:
    """The SHA-256 of the picture that a linked drawing started from; None where it had none."""
    digest = _settings(query).get("init_image", "")
    return digest if re.fullmatch("[0-9a-f]{64}", digest) else None


def model_of(query: Mapping[str, str] | str) -> str:
    """By its name on the page what draws a link; empty: the page's own."""
    return _settings(query).get("model", "")


def _settings(query: Mapping[str, str] | str) -> Mapping[str, str]:
    return dict(parse_qsl(query.removeprefix("?"))) if isinstance(query, str) else query


def _read(name: str, text: str) -> object:
    """A setting as an address writes it; what is no number is left to Request to judge."""
    if name in ("prompt", "negative_prompt", "scheduler"):
        return text
    if name == "prompt_weights":
        return {"true": True, "false": False}.get(text, text)
    try:
        return float(text) if name in FRACTIONS else int(text)
    except ValueError:
        return text
