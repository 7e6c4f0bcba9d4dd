"""Captions as a text encoder reads them: how many tokens, and what it never sees."""

from __future__ import annotations

from errors import UserError, reason_of
from preparing.check import CountTokens


def token_counter(model: str, revision: str | None = None) -> CountTokens:
    """Counts with the tokenizer of a model folder or hub id.

    The counter maps texts to token counts, start and end included, and the words beyond the last
    token that is read. Raises `UserError` where there is no such tokenizer.
    """
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(model, subfolder="tokenizer", revision=revision)
        if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what comes of no files
            raise OSError("there are no files of one")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{model} has no tokenizer that can be read ({reason_of(error)}); name the model "
            "that you are going to fine-tune."
        ) from error
    most = tokenizer.model_max_length

    def count(texts: list[str]) -> list[tuple[int, str]]:
        if not texts:
            return []
        encoded = tokenizer(texts, return_offsets_mapping=True, verbose=False)
        counted = []
        for text, ids, places in zip(texts, encoded.input_ids, encoded.offset_mapping, strict=True):
            lost = text[places[most - 1][0] :].strip() if len(ids) > most else ""
            counted.append((len(ids), lost))
        return counted

    return count
