r"""Words of a prompt that count more or less than the others, written as in AUTOMATIC1111.

(word)      1.1 times as much, ((word)) 1.1 times that, and so on
(word:1.3)  1.3 times as much
[word]      1.1 times less
\( \) \[ \] \\   the characters themselves
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.errors import UserError

if TYPE_CHECKING:
    import torch

Part = tuple[str, float]  # words, and how much they count
STRONGER = 1.1
MAX_WEIGHT = 10  # either way: beyond it nothing but noise is drawn, or numbers overflow
BRACKET = re.compile(r"[()\[\]]")
MARK = re.compile(
    r"(?P<escaped>\\[()\[\]\\]?)|(?P<opens>[(\[])|:\s*(?P<factor>[+-]?[.\d]+)\s*\)"
    r"|(?P<closes>[)\]])|[^\\()\[\]:]+|:"
)
FACTORS = {"(": STRONGER, "[": 1 / STRONGER}
OPENED_BY = {")": "(", "]": "["}


def parts_of(prompt: str) -> list[Part]:
    """The prompt in parts of equal weight; one without brackets is one part, as it stands.

    A bracket that is never closed reaches to the end. Raises UserError for a weight that is no
    number, or too large.
    """
    if not BRACKET.search(prompt):
        return [(prompt, 1.0)]
    parts: list[list] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}  # which part is the first in each bracket
    for mark in MARK.finditer(prompt):
        text, closes = mark[0], OPENED_BY.get(mark["closes"])
        if mark["escaped"]:
            parts.append([text[1:], 1.0])
        elif mark["opens"]:
            opened[text].append(len(parts))
        elif mark["factor"] and opened["("]:
            _multiply(parts, opened["("].pop(), _number(mark["factor"]))
        elif closes and opened[closes]:
            _multiply(parts, opened[closes].pop(), FACTORS[closes])
        else:
            parts.append([text, 1.0])
    for bracket, places in opened.items():
        for place in places:
            _multiply(parts, place, FACTORS[bracket])
    return [_checked(part) for part in _joined(parts)]


def words_of(parts: Sequence[Part]) -> str:
    """What the text encoder reads: a space keeps words of different weight apart, as if each part
    were turned into tokens by itself."""
    return " ".join(text for text, _ in parts)


def has_marks(prompt: str) -> bool:
    """Whether it is read otherwise than it stands where weights are read."""
    try:
        return parts_of(prompt) != [(prompt, 1.0)]
    except UserError:
        return True


def escaped(text: str) -> str:
    """A prompt that reads as this text does where weights are not read."""
    return re.sub(r"[()\[\]\\]", r"\\\g<0>", text) if BRACKET.search(text) else text


def weigh(embeddings: torch.Tensor, prompts: Sequence[Sequence[Part]], tokenizer) -> torch.Tensor:
    """The embeddings (N,77,D) of prompts, scaled token by token, each then as a whole so that its
    mean is what it was. Those of prompts without weights keep their bits.

    Each prompt by itself, so that a picture does not depend on what is drawn beside it.
    """
    import torch

    return torch.stack([
        _weighed(row, parts, tokenizer) if any(weight != 1 for _, weight in parts) else row
        for row, parts in zip(embeddings, prompts, strict=True)
    ])  # fmt: skip


def _weighed(row: torch.Tensor, parts: Sequence[Part], tokenizer) -> torch.Tensor:
    """77,D -> 77,D. The tokens of start, end and filling count once."""
    weights = row.new_ones(len(row), 1).float()
    place, last = 1, len(row) - 1
    for text, weight in parts:
        end = place + len(tokenizer(text, add_special_tokens=False)["input_ids"])
        weights[min(place, last) : min(end, last)] = weight
        place = end
    scaled = row.float() * weights
    return (scaled * (row.float().mean() / scaled.mean())).to(row.dtype)


def _multiply(parts: list[list], first: int, factor: float) -> None:
    for part in parts[first:]:
        part[1] *= factor


def _joined(parts: list[list]) -> list[Part]:
    """Neighbours of equal weight as one; at least one part."""
    joined = [["", 1.0]] if not parts else [parts[0]]
    for text, weight in parts[1:]:
        if weight == joined[-1][1]:
            joined[-1][0] += text
        else:
            joined.append([text, weight])
    return [(text, weight) for text, weight in joined]


def _number(written: str) -> float:
    try:
        return float(written)
    except ValueError:
        raise UserError(
            f"The weight ':{written:.40})' in the prompt is no number. Write one as in (word:1.2), "
            r"or \( and \) for brackets that are meant as such."
        ) from None


def _checked(part: Part) -> Part:
    text, weight = part
    if not -MAX_WEIGHT <= weight <= MAX_WEIGHT:
        raise UserError(
            f"'{text.strip():.40}' in the prompt has the weight {weight:.4g}. Give one from "
            f"-{MAX_WEIGHT} to {MAX_WEIGHT}: (word:1.2) is usual, and each bracket is worth "
            f"{STRONGER}."
        )
    return part
