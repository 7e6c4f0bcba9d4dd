"""Captions: validation, and token counts by the model's tokenizer."""

from __future__ import annotations

import re
from collections.abc import Callable

from core.errors import UserError, is_ours, reason_of
from core.hub import find
from core.model_check import check_files
from core.printable import is_blank, is_text, quoted
from core.tokens import truncated_words
from data.limits import CAPTION_CHARACTERS, CAPTIONS

NUMBER = re.compile(r"[+-]?+(\d++(\.\d*+)?+|\.\d++)(e[+-]?\d++)?+", re.IGNORECASE)
NO_CAPTION = {"na", "n/a", "nan", "null", "none", "nil", "-", "?"}

# For each text its token count and the words beyond the limit.
CountTokens = Callable[[list[str]], list[tuple[int, str]]]


def caption_fault(caption: object) -> str | None:
    """Validate a caption, or several of one picture; a message, or None if valid."""
    texts = caption if isinstance(caption, list | tuple) else [caption]
    if caption is None or not texts:
        return "has no caption; write one or delete the row"
    if len(texts) > CAPTIONS:
        return f"has more than {CAPTIONS:,} captions; leave some out"
    for text in texts:
        if not isinstance(text, str):
            return f"the caption {quoted(caption)} is not a text; put it in words"
        if is_blank(text):
            return "the caption is blank; write one or delete the row"
        if not is_text(text):
            return f"the caption {quoted(text)} holds an invalid character; type it again"
        if text.strip().lower() in NO_CAPTION:
            return f"the caption {quoted(text)} stands for none; write one or delete the row"
        if NUMBER.fullmatch(text.strip()):
            return f"the caption {quoted(text)} is a number; put it in words"
        if len(text) > CAPTION_CHARACTERS:
            return f"the caption has {len(text):,} characters; leave at most {CAPTION_CHARACTERS:,}"
    return None


def texts_of(caption: object) -> tuple[str, ...]:
    """The texts of a valid caption: one, or several from which each training step picks one."""
    if isinstance(caption, str):
        return (caption,)
    return tuple(caption) if isinstance(caption, list | tuple) else ()


def tokenizer_of(model: str, revision: str | None = None, subfolder: str = "tokenizer"):
    """Load the tokenizer of a model folder or hub id; `subfolder` "" for a tokenizer on its own.

    Raises `UserError` if there is none.
    """
    from transformers import CLIPTokenizer

    check_files(model)
    find(model)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(model, subfolder=subfolder, revision=revision)
        if len(tokenizer) <= len(
            tokenizer.all_special_tokens
        ):  # transformers makes an empty one without files
            raise OSError("there are no files of one")
    except (OSError, ValueError, TypeError) as error:
        if is_ours(error):
            raise
        advice = "name the model that you are going to fine-tune" if subfolder else "name another"
        raise UserError(
            f"{model} has no tokenizer that can be read ({reason_of(error)}); {advice}."
        ) from error
    return tokenizer


def token_counter(
    model: str,
    revision: str | None = None,
    subfolder: str = "tokenizer",
    max_tokens: int | None = None,
) -> CountTokens:
    """A token counter with the tokenizer that `tokenizer_of` loads.

    The counter maps texts to token counts, start and end included, and to the words that are cut
    off: those beyond `max_tokens`, or beyond the tokenizer's own limit. Raises `UserError` where
    there is no such tokenizer.
    """
    tokenizer = tokenizer_of(model, revision, subfolder)
    limit = max_tokens or tokenizer.model_max_length

    def count(texts: list[str]) -> list[tuple[int, str]]:
        if not texts:
            return []
        encoded = tokenizer(texts, return_offsets_mapping=True, verbose=False)
        counted = []
        for text, ids, offsets in zip(
            texts, encoded.input_ids, encoded.offset_mapping, strict=True
        ):
            read = limit - 2  # without the tokens of start and end
            counted.append((len(ids), truncated_words(text, offsets[1:-1], read)))
        return counted

    return count


def uncounted(texts: list[str]) -> list[tuple[int, str]]:
    """Token counter without a tokenizer: counts 0, cuts nothing off."""
    return [(0, "")] * len(texts)
