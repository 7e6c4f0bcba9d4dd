"""Images of a model beside its base's, at the same prompts and seeds, from the model folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from io import BytesIO
from itertools import islice
from pathlib import Path

from PIL import Image

from core.errors import UserError
from core.html import data_uri
from core.images import jpeg_of
from core.paths import CARD_BYTES, read_own
from core.printable import printable
from sampling.examples import Example, example_of
from webapp.runs.samples import MAX_BYTES, VALIDATION, name_of, numbers_by_step
from webapp.ui import strings
from webapp.ui.run_scores import number

MAX_PAIRS = 6
MAX_SIDE = 4096  # of samples.png
SHOWN_SIDE = 1344  # pixels of its longer side
CAPTION = 160  # characters
SAMPLES = "samples.png"
DESCRIBED = re.compile(r"!\[([^\[\]]{1,300})\]\(samples\.png\)")  # in the model's card


@dataclass(frozen=True)
class ImagePair:
    """One request as the base drew it before training, and the model after it."""

    base: Example
    model: Example


def validation_images(folder: Path | None, run: dict, base: str) -> str:
    """HTML: pairs of validation images, or else samples.png; empty where there are neither."""
    if folder is None:
        return ""
    pairs = list(islice(pairs_of(folder, run), MAX_PAIRS))
    return _pairs(pairs, base) if pairs else _samples(folder)


def pairs_of(folder: Path, run: dict) -> Iterator[ImagePair]:
    """The first image of each validation prompt, by the base and by the model of this run."""
    numbers = numbers_by_step(folder)
    steps = [step for step in numbers if step <= (number(run, "steps") or step)]
    if 0 not in steps or max(steps) == 0:
        return
    per_prompt = max(1, int(number(run, "options", "num_validation_images") or 1))
    for place in sorted(numbers[0] & numbers[max(steps)]):
        if place % per_prompt:
            continue
        base, model = (_image(folder, step, place) for step in (0, max(steps)))
        if base and model and base.request == model.request:
            yield ImagePair(base, model)


def _image(folder: Path, step: int, place: int) -> Example | None:
    """None for a file that is no image with settings."""
    try:
        return example_of(read_own(folder, f"{VALIDATION}/{name_of(step, place)}", MAX_BYTES))
    except (OSError, UserError):
        return None


def _pairs(pairs: list[ImagePair], base: str) -> str:
    shown = []
    for pair in pairs:
        prompt = printable(pair.base.request.prompt, CAPTION)
        pictures = "".join(
            f'<img src="{data_uri(jpeg_of(each.small))}" alt="{escape(f"{prompt}: {whose}")}">'
            for each, whose in ((pair.base, strings.BASE), (pair.model, strings.MODEL_COLUMN))
        )
        seed = strings.SEED_OF_PICTURE.format(seed=pair.base.request.seed)
        caption = f"<figcaption>{escape(prompt)} · {seed}</figcaption>"
        shown.append(f"<li><figure>{pictures}{caption}</figure></li>")
    told = escape(strings.BESIDE.format(base=base))
    return f'<h2>{strings.PICTURES_BESIDE}</h2><p>{told}</p><ul class="pairs">{"".join(shown)}</ul>'


def _samples(folder: Path) -> str:
    """samples.png, where the model card shows and describes it."""
    try:
        image = samples_of(folder)
        card = read_own(folder, "README.md", CARD_BYTES).decode(errors="replace")
    except OSError:
        return ""
    described = DESCRIBED.search(card)
    if image is None or not described:
        return ""
    told = escape(printable(described[1], 300))
    return (
        f"<h2>{strings.PICTURES_BESIDE}</h2><figure>"
        f'<img src="{data_uri(jpeg_of(image))}" alt="{told}">'
        f"<figcaption>{told}</figcaption></figure>"
    )


def samples_of(folder: Path) -> Image.Image | None:
    """The folder's samples.png as RGB, reduced to the size shown; None where it is no PNG. Raises
    OSError where there is none."""
    content = read_own(folder, SAMPLES, MAX_BYTES)
    try:
        with Image.open(BytesIO(content), formats=["PNG"]) as image:
            if max(image.size) > MAX_SIDE:
                return None
            small = image.convert("RGB")
    # What PIL raises for damaged chunks; UnidentifiedImageError is an OSError.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    small.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return small
