"""Attribute binding: whether each thing in a picture has its own colour. The scorer compares "a red
creature with blue wings" with the same words and swapped colours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from core.formatting import amount
from evaluation.metric import Metric, percent

if TYPE_CHECKING:
    from evaluation.results import Result
    from evaluation.scores import Share

COLOURS = (
    "red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink", "brown", "gray",
    "grey", "black", "white", "golden", "silver", "beige",
)  # fmt: skip
WORD = re.compile(rf"\b({'|'.join(COLOURS)})\b", re.IGNORECASE)
# Words between the two things that belong to the second: ", a", "and two", "in front of the".
LEAD = re.compile(
    r"[\s,;]+(?:(with|and|or|on|in|at|under|behind|beside|before|above|below|near|over|by|holding|"
    r"wearing|next to|in front of|on top of)\s+)?"
    r"(?:(?:a|an|the|its|his|her|their|some|one|two|three|four)\s+)?$",
    re.IGNORECASE,
)
NOUN = re.compile(r"\s+[\w-]+")


def swapped(caption: str) -> str | None:
    """The caption with its two colours exchanged; None unless it names exactly two different
    colours, each once, of two things."""
    colours = list(WORD.finditer(caption))
    if len(colours) != 2 or colours[0][0].lower() == colours[1][0].lower():
        return None
    first, second = colours
    middle = caption[first.end() : second.start()]
    if middle.strip() in ("and", "or", "-"):  # one thing has both
        return None
    return f"{caption[: first.start()]}{second[0]}{middle}{first[0]}{caption[second.end() :]}"


def without_second(caption: str) -> str | None:
    """A caption that `swapped` accepts, without its second thing: a picture that fits this no worse
    does not show that thing. None if the words cannot be separated."""
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
    """The first colour in a caption: in the bundled captions, that of the body."""
    found = WORD.search(caption)
    return found[0].lower() if found else None


def _sentence(result: Result, share: Share) -> str:
    low, high = share.interval
    return (
        f"By its scorer, {result.model} gives two colours to the right things in {share.hits} of "
        f"{amount(share.count, 'picture')} that show both ({percent(low)} to "
        f"{percent(high)}; guessing: 50 %)."
    )


def _json(share: Share) -> dict:
    return {
        "right": share.hits,
        "pictures": share.count,
        "interval_95": share.interval,
    }


BINDING = Metric(
    "binding",
    "colours right",
    "of pictures with both coloured things, those that fit swapped colours less",
    lambda sample: sample.following.binding,
    lambda share: share.text,
    _json,
    sentence=_sentence,
    needs_reference=False,
)
COLOURS_SEEN = Metric(
    "colours_seen",
    "colours seen",
    "the colour that the prompt names is that of the body, read from pixels",
    lambda sample: sample.following.coloured,
    lambda share: share.text,
    _json,
    needs_reference=False,
)
