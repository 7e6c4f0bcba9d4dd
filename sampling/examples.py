"""Example images in a model folder, with the prompts and settings that drew them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from core.errors import UserError
from core.paths import read_bytes
from sampling.image_metadata import request_of
from sampling.request import BOUNDS, Request

MAX_EXAMPLES, MAX_BYTES = 12, 4 * 2**20  # of a model; of each
THUMBNAIL = 128  # pixels of its longer side


@dataclass(frozen=True)
class Example:
    """A PNG, the request that draws it again, and a thumbnail."""

    request: Request
    png: bytes
    small: Image.Image  # RGB


def examples_of(model: str) -> list[Example]:
    """The images in `model`/examples, by file name. One without settings is left out, and the log
    says why."""
    found = []
    for path in sorted(Path(model).glob("examples/*.png"))[:MAX_EXAMPLES]:
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
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return Example(request, png, small)
