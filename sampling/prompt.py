r"""Prompts: attention weights in the syntax of AUTOMATIC1111, and how many tokens are read.

(word)      1.1 times as much weight, ((word)) 1.1 times that, and so on
(word:1.3)  1.3 times as much
[word]      1.1 times less
\( \) \[ \] \\   the literal characters
"""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.errors import UserError
from core.tokens import truncated_words

if TYPE_CHECKING:
    import torch

Part = tuple[str, float]  # words, and their weight
STRONGER = 1.1  # weight of a pair of round brackets
MAX_WEIGHT = 10  # of either sign; beyond it pictures are noise, or numbers overflow
BRACKET = re.compile(r"[()\[\]]")
MARK = re.compile(
    r"(?P<escaped>\\[()\[\]\\]?)|(?P<opens>[(\[])|:\s*(?P<factor>[+-]?[.\d]+)\s*\)"
    r"|(?P<closes>[)\]])|[^\\()\[\]:]+|:"
)
FACTORS = {"(": STRONGER, "[": 1 / STRONGER}
OPENED_BY = {")": "(", "]": "["}


def parts_of(prompt: str) -> list[Part]:
    """Parse a prompt into parts of equal weight; one without brackets is a single part, verbatim.

    An unclosed bracket extends to the end. Raises UserError for a weight that is malformed or too
    large.
    """
    if not BRACKET.search(prompt):
        return [(prompt, 1.0)]
    parts: list[Part] = []
    unclosed: dict[str, list[int]] = {"(": [], "[": []}  # index of the first part in each bracket
    for mark in MARK.finditer(prompt):
        text, closes = mark[0], OPENED_BY.get(mark["closes"])
        if mark["escaped"]:
            parts.append((text[1:], 1.0))
        elif mark["opens"]:
            unclosed[text].append(len(parts))
        elif mark["factor"] and unclosed["("]:
            _multiply(parts, unclosed["("].pop(), _number(mark["factor"]))
        elif closes and unclosed[closes]:
            _multiply(parts, unclosed[closes].pop(), FACTORS[closes])
        else:
            parts.append((text, 1.0))
    for bracket, starts in unclosed.items():
        for start in starts:
            _multiply(parts, start, FACTORS[bracket])
    return [_checked(part) for part in _merged(parts)]


def words_of(parts: Sequence[Part]) -> str:
    """The text that the text encoder reads: parts are separated by a space, so that each is
    tokenized as if it stood alone."""
    return " ".join(text for text, _ in parts)


def has_marks(prompt: str) -> bool:
    """Whether the prompt reads differently once weights are parsed."""
    try:
        return parts_of(prompt) != [(prompt, 1.0)]
    except UserError:
        return True


def escaped(text: str) -> str:
    """A prompt whose brackets are literal: it reads as `text` does with weights switched off."""
    return re.sub(r"[()\[\]\\]", r"\\\g<0>", text) if BRACKET.search(text) else text


def weigh(embeddings: torch.Tensor, prompts: Sequence[Sequence[Part]], tokenizer) -> torch.Tensor:
    """Prompt embeddings (N,77,D) scaled by the weight of each token, then rescaled to their former
    mean. Those of unweighted prompts are returned bit for bit.

    Each prompt is scaled separately, so that a picture does not depend on the rest of its batch.
    """
    import torch

    return torch.stack([
        _weighed(row, parts, tokenizer) if any(weight != 1 for _, weight in parts) else row
        for row, parts in zip(embeddings, prompts, strict=True)
    ])  # fmt: skip


def _weighed(row: torch.Tensor, parts: Sequence[Part], tokenizer) -> torch.Tensor:
    """77,D -> 77,D. The start, end and padding tokens have weight 1."""
    weights = row.new_ones(len(row), 1).float()
    place, last = 1, len(row) - 1
    for text, weight in parts:
        end = place + len(tokenizer(text, add_special_tokens=False)["input_ids"])
        weights[min(place, last) : min(end, last)] = weight
        place = end
    scaled = row.float() * weights
    return (scaled * (row.float().mean() / scaled.mean())).to(row.dtype)


def _multiply(parts: list[Part], first: int, factor: float) -> None:
    parts[first:] = [(text, weight * factor) for text, weight in parts[first:]]


def _merged(parts: list[Part]) -> list[Part]:
    """Neighbours of equal weight merged into one part; at least one part."""
    merged = parts[:1] or [("", 1.0)]
    for text, weight in parts[1:]:
        last_text, last_weight = merged[-1]
        if weight == last_weight:
            merged[-1] = last_text + text, weight
        else:
            merged.append((text, weight))
    return merged


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


class PromptTokens:
    """Counts the tokens of prompts with the model's tokenizer. Thread-safe."""

    def __init__(self, tokenizer):
        # A copy of its own, behind a lock: encoding changes a tokenizer's padding and truncation.
        self._tokenizer, self._lock = copy.deepcopy(tokenizer), threading.Lock()
        self._limit = tokenizer.model_max_length - 2  # 77, less the start and end tokens

    def tokens(self, prompt: str) -> tuple[int, int]:
        """How many tokens the prompt has, and how many the text encoder reads at most (75)."""
        return len(self._encoded(prompt)["input_ids"]), self._limit

    def dropped_words(self, prompt: str) -> str:
        """The end of the prompt that the text encoder does not read; "" if it reads all."""
        return truncated_words(prompt, self._encoded(prompt)["offset_mapping"], self._limit)

    def _encoded(self, prompt: str):
        text = prompt.encode(errors="replace").decode()  # tokenizers refuse lone surrogates
        with self._lock:
            return self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
