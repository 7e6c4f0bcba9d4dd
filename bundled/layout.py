"""Where the things of a scene are put: boxes in fractions of the picture, and what fills them."""

from __future__ import annotations

from random import Random

from PIL import Image

from bundled.canvas import SIZE

GAP = 0.03  # between two things, a fraction of the side
# How much of its box a thing fills: of the whole picture by its size, of a part always much.
FILLED = {"small": (0.34, 0.44), "": (0.62, 0.80), "big": (0.88, 0.96)}
FILLED_PART = (0.80, 0.96)

Box = tuple[float, float, float, float]  # left, top, right, bottom in 0..1
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def boxes(relation: str | None, rng: Random) -> list[Box]:
    """The whole picture, or a part for each of two that stand beside or above each other."""
    if not relation:
        return [WHOLE]
    cut = rng.uniform(0.47, 0.53)
    if relation == "beside":
        return [(0.0, 0.0, cut - GAP / 2, 1.0), (cut + GAP / 2, 0.0, 1.0, 1.0)]
    return [(0.0, 0.0, 1.0, cut - GAP / 2), (0.0, cut + GAP / 2, 1.0, 1.0)]


def spread(box: Box, count: int, rng: Random) -> list[Box]:
    """`count` boxes that share `box` without overlap: along its longer side, or three as a
    triangle."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if count == 1:
        return [box]
    if count == 3 and width == height and rng.random() < 0.6:
        middle, half = left + width / 2, top + height / 2
        upper = (left + width / 4, top, right - width / 4, half)
        lower = [(left, half, middle, bottom), (middle, half, right, bottom)]
        return [upper, *lower] if rng.random() < 0.5 else [
            (upper[0], half, upper[2], bottom), *((x, top, y, half) for x, _, y, _ in lower)
        ]  # fmt: skip
    if width > height or (width == height and rng.random() < 0.75):
        return [(left + width * i / count, top, left + width * (i + 1) / count, bottom)
                for i in range(count)]  # fmt: skip
    return [(left, top + height * i / count, right, top + height * (i + 1) / count)
            for i in range(count)]  # fmt: skip


def paste(canvas: Image.Image, picture: Image.Image, box: Box, size: str, rng: Random) -> None:
    """Put an RGBA picture somewhere into `box`, in 0..1, as large as `size` says."""
    left, top, right, bottom = (part * SIZE for part in box)
    room = min(right - left, bottom - top)
    share = FILLED[size] if room == SIZE else FILLED_PART
    side = round(room * rng.uniform(*share))
    small = picture.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    x = left + (right - left - side) * rng.uniform(0.3, 0.7)
    y = top + (bottom - top - side) * rng.uniform(0.3, 0.7)
    canvas.paste(small, (round(x), round(y)), small)
