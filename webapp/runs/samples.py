"""Validation pictures of a run: DIR/RUN/validation/step-000100-0.png, by step and number."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from os import scandir
from pathlib import Path

from core.errors import UserError
from core.image_formats import Unreadable
from core.images import jpeg_of, rgb_of
from core.paths import read_own
from sampling.image_metadata import request_of
from sampling.request import BOUNDS

VALIDATION, FILE_NAME = "validation", re.compile(r"step-(\d{6,12})-(\d{1,6})\.png", re.ASCII)
MAX_FILES = 20_000  # of the folder; others are not seen
MAX_BYTES = 16 * 2**20  # of a picture
MAX_SIDE = BOUNDS["width"][1]  # pixels
SIDES = {"small": 128, "large": 512}  # pixels of the longer side, as served
NO_PICTURE = "There is no such picture."


@dataclass(frozen=True)
class Sample:
    """One picture: drawn after `step`, 0 being the base model's."""

    step: int
    number: int  # by prompts, and by pictures of each
    prompt: str  # empty where it does not say
    seed: int | None
    stamp: str  # another one as soon as the file is another


class Samples:
    """The validation pictures that a folder has by now."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._numbers = numbers_by_step(folder)

    @property
    def steps(self) -> list[int]:
        return sorted(self._numbers)

    def at(self, step: int, limit: int) -> list[Sample]:
        """The first `limit` pictures of a step."""
        numbers = sorted(self._numbers.get(step, ()))[:limit]
        found = (self._sample(step, number) for number in numbers)
        return [each for each in found if each]

    def count(self, step: int) -> int:
        return len(self._numbers.get(step, ()))

    def first(self, step: int) -> Sample | None:
        return next(iter(self.at(step, 1)), None)

    def _sample(self, step: int, number: int) -> Sample | None:
        path = self._folder / VALIDATION / name_of(step, number)
        try:
            found = path.stat()
        except OSError:
            return None
        stamp = f"{found.st_mtime_ns:x}-{found.st_size:x}"
        prompt, seed = _drawn_by(self._folder, step, number, stamp)
        return Sample(step, number, prompt, seed, stamp)


def numbers_by_step(folder: Path) -> dict[int, set[int]]:
    """The numbers of the validation pictures of each step."""
    found: dict[int, set[int]] = {}
    try:
        with scandir(folder / VALIDATION) as entries:
            names = [entry.name for entry in islice(entries, MAX_FILES)]
    except OSError:  # there is no such folder
        return {}
    for name in names:
        parts = FILE_NAME.fullmatch(name)
        if parts and name == name_of(int(parts[1]), int(parts[2])):
            found.setdefault(int(parts[1]), set()).add(int(parts[2]))
    return found


def name_of(step: int, number: int) -> str:
    return f"step-{step:06}-{number}.png"


def jpeg_of_sample(folder: Path, step: int, number: int, side: int) -> bytes:
    """A picture of a run as a JPEG file, `side` pixels at most. Raises UserError."""
    try:
        content = read_own(folder, f"{VALIDATION}/{name_of(step, number)}", MAX_BYTES)
        return jpeg_of(rgb_of(content, ["PNG"], MAX_SIDE * MAX_SIDE), side)
    except (OSError, Unreadable) as error:
        raise UserError(NO_PICTURE) from error


@lru_cache(maxsize=512)
def _drawn_by(folder: Path, step: int, number: int, _stamp: str) -> tuple[str, int | None]:
    """The prompt and seed in a picture."""
    try:
        content = read_own(folder, f"{VALIDATION}/{name_of(step, number)}", MAX_BYTES)
        request = request_of(content)
    except (OSError, UserError):
        return "", None
    return request.prompt, request.seed
