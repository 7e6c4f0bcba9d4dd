"""Pictures that a model folder brings along with the words and settings they were drawn with."""

from __future__ import annotations

import html
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from core.errors import UserError
from core.html import data_uri
from core.images import jpeg_of
from core.paths import read_bytes
from sampling.image_metadata import request_of
from sampling.request import BOUNDS, Request
from webapp.ui import strings

MOST, MAX_BYTES = 12, 4 * 2**20  # pictures of a model; of each
SIDE = 128  # pixels of what is shown to choose from
# In the component's own script: tells the page which picture was clicked.
CHOOSE = """element.addEventListener("click", (event) => {
  const chosen = event.target.closest("button");
  if (chosen) trigger("click", { number: Number(chosen.dataset.number) });
});"""


@dataclass(frozen=True)
class Example:
    """A PNG, the request that draws it again, and a small look at it."""

    request: Request
    png: bytes
    small: Image.Image  # RGB


def examples_of(model: str) -> list[Example]:
    """Those in `model`/examples, by name; what is no picture with settings is left out, and the
    log says why."""
    found = []
    for path in sorted(Path(model).glob("examples/*.png"))[:MOST]:
        try:
            found.append(example_of(read_bytes(path, MAX_BYTES)))
        except (OSError, UserError) as error:
            logging.getLogger(__name__).warning("%s is not shown: %s", path, error)
    return found


def example_of(png: bytes) -> Example:
    """Raises UserError, or OSError, for what cannot be shown."""
    request = request_of(png)
    try:
        with Image.open(BytesIO(png), formats=["PNG"]) as image:
            if max(image.size) > BOUNDS["width"][1]:
                raise UserError(f"It has {image.width} x {image.height} pixels.")
            small = image.convert("RGB")
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:  # damaged chunks
        raise UserError("This is no PNG picture.") from error
    small.thumbnail((SIDE, SIDE))
    return Example(request, png, small)


def choice_of(examples: Sequence[Example]) -> str:
    """HTML: small pictures, each a button that is called by its words."""
    buttons = (
        f'<button type="button" data-number="{number}" title="{_words(each)}">'
        f'<img src="{data_uri(jpeg_of(each.small))}" alt="{_words(each)}"></button>'
        for number, each in enumerate(examples)
    )
    return f'<div role="group" aria-label="{strings.EXAMPLES}">{"".join(buttons)}</div>'


def _words(example: Example) -> str:
    return html.escape(example.request.prompt)
