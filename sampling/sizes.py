"""Sizes at which a model draws what it has learned, and what becomes of others."""

from __future__ import annotations

LARGEST, SMALLEST = 2, 1 / 2  # times the side of the pictures that a model learned from
NOTE = "The model learned from pictures of {side} x {side} pixels: {what}."
TOO_LARGE = "beyond twice that, things repeat within a picture"
TOO_SMALL = "below half of that, things are cut off or blur"


def size_note(width: int | None, height: int | None, side: int | None) -> str:
    """A sentence on what to expect of pictures of this size; "" where it is a usual one.

    None: the model's own size. `side`: of the pictures that the model learned from, in pixels; None
    where that is not known.
    """
    if side is None:
        return ""
    sides = width or side, height or side
    if max(sides) > LARGEST * side:
        return NOTE.format(side=side, what=TOO_LARGE)
    if min(sides) < SMALLEST * side:
        return NOTE.format(side=side, what=TOO_SMALL)
    return ""
