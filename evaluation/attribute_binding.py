"""Does the model give each thing its own colour? "a red creature with blue wings" against the same
words with the colours swapped, on the same picture."""

from __future__ import annotations

import re

COLOURS = (
    "red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink", "brown", "gray",
    "grey", "black", "white", "golden", "silver", "beige",
)  # fmt: skip
WORD = re.compile(rf"\b({'|'.join(COLOURS)})\b", re.IGNORECASE)
# What leads to a second thing, and goes with it: ", a", "and two", "in front of the".
LEAD = re.compile(
    r"[\s,;]+(?:(with|and|or|on|in|at|under|behind|beside|before|above|below|near|over|by|holding|"
    r"wearing|next to|in front of|on top of)\s+)?"
    r"(?:(?:a|an|the|its|his|her|their|some|one|two|three|four)\s+)?$",
    re.IGNORECASE,
)
NOUN = re.compile(r"\s+[\w-]+")


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


def without_second(caption: str) -> str | None:
    """The caption without the second of the two things that `swapped` gives each other's colour,
    so that a picture can be asked whether that is there; None where it is not clear."""
    second = list(WORD.finditer(caption))[1]
    lead = LEAD.search(caption[: second.start()])
    noun = NOUN.match(caption, second.end())
    if not lead or not noun:
        return None
    before, after = caption[: lead.start()], caption[noun.end() :]
    if lead[1] and lead[1].lower() == "with" and after.startswith(" and "):
        return f"{before} with {after.removeprefix(' and ')}"  # the next thing that it has
    return before + after


def first_colour(caption: str) -> str | None:
    """The first colour that a caption names: in the bundled captions, that of the body."""
    found = WORD.search(caption)
    return found[0].lower() if found else None
