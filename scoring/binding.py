"""Does the model give each thing its own colour? "a red creature with blue wings" against the same
words with the colours swapped, on the same picture."""

from __future__ import annotations

import re

COLOURS = (
    "red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink", "brown", "gray",
    "grey", "black", "white", "golden", "silver", "beige",
)  # fmt: skip
WORD = re.compile(rf"\b({'|'.join(COLOURS)})\b", re.IGNORECASE)


def swapped(caption: str) -> str | None:
    """The caption with its two colours in each other's place; None where it does not name exactly
    two different ones, each once."""
    found = list(WORD.finditer(caption))
    if len(found) != 2 or found[0][0].lower() == found[1][0].lower():
        return None
    first, second = found
    middle = caption[first.end() : second.start()]
    if middle.strip() in ("and", "or", "-"):  # one thing has both
        return None
    return f"{caption[: first.start()]}{second[0]}{middle}{first[0]}{caption[second.end() :]}"


def first_colour(caption: str) -> str | None:
    """The first colour that a caption names: in the bundled captions, that of the body."""
    found = WORD.search(caption)
    return found[0].lower() if found else None
