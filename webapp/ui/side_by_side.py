"""Pictures of a model beside its base's, as its folder has them: of the same words and seeds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from io import BytesIO
from itertools import islice
from os import scandir
from pathlib import Path

from PIL import Image

from core.errors import UserError
from core.html import data_uri
from core.images import jpeg_of
from core.paths import CARD_BYTES, read_own
from core.printable import printable
from webapp.ui import strings
from webapp.ui.examples import Example, example_of
from webapp.ui.run_scores import number

MAX_FILES = 20_000  # in the folder of validation pictures that are looked at
MAX_PAIRS = 6
MAX_BYTES, MAX_SIDE = 16 * 2**20, 4096  # of samples.png, and of either of its sides
SHOWN_SIDE = 1344  # pixels of its longer side
CAPTION = 160  # characters
VALIDATION, LOOK = "validation", re.compile(r"step-(\d{6,12})-(\d{1,6})\.png", re.ASCII)
SAMPLES = "samples.png"
DESCRIBED = re.compile(r"!\[([^\[\]]{1,300})\]\(samples\.png\)")  # in the model's card


@dataclass(frozen=True)
class SideBySide:
    """What the base drew at the first look and the model at its last, of one request."""

    base: Example
    model: Example


def pictures_beside(folder: Path | None, run: dict, base: str) -> str:
    """HTML: pairs of the validation pictures, or else the samples; "" where there are neither."""
    if folder is None:
        return ""
    pairs = list(islice(pairs_of(folder, run), MAX_PAIRS))
    return _pairs(pairs, base) if pairs else _samples(folder)


def pairs_of(folder: Path, run: dict) -> Iterator[SideBySide]:
    """The first picture of each validation prompt, by the base and by the model of this run."""
    looks = _looks(folder)
    ends = [step for step in looks if step <= (number(run, "steps") or step)]
    if 0 not in ends or max(ends) == 0:
        return
    each = int(number(run, "options", "num_validation_images") or 1)
    for place in sorted(looks[0] & looks[max(ends)]):
        if place % max(each, 1):
            continue
        pair = [_validation(folder, step, place) for step in (0, max(ends))]
        if None not in pair and pair[0].request == pair[1].request:
            yield SideBySide(*pair)


def _looks(folder: Path) -> dict[int, set[int]]:
    """Steps with the numbers of their validation pictures."""
    found = {}
    try:
        with scandir(folder / VALIDATION) as entries:
            names = [entry.name for entry in islice(entries, MAX_FILES)]
    except OSError:  # there is no such folder
        return {}
    for name in names:
        if parts := LOOK.fullmatch(name):
            found.setdefault(int(parts[1]), set()).add(int(parts[2]))
    return found


def _validation(folder: Path, step: int, place: int) -> Example | None:
    """None for what is no picture with its settings."""
    try:
        return example_of(read_own(folder, f"{VALIDATION}/step-{step:06}-{place}.png", MAX_BYTES))
    except (OSError, UserError):
        return None


def _pairs(pairs: list[SideBySide], base: str) -> str:
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
    """What the folder's own card shows and describes."""
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
    """The folder's samples.png: RGB, no larger than is shown. None where it is no PNG. Raises
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
