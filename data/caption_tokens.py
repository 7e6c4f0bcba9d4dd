"""What of a model matters to its data: the tokens of a caption that it reads, its size."""

from __future__ import annotations

from pathlib import Path

from core.bounded_json import read
from core.errors import UserError, reason_of
from core.hub import find
from core.model_check import check_files, picture_side
from core.paths import is_folder
from data.validate import CountTokens


def tokenizer_of(model: str, revision: str | None = None, subfolder: str = "tokenizer"):
    """The tokenizer of a model folder or hub id; with `subfolder` "", one that is there alone.

    Raises `UserError` where there is none.
    """
    from transformers import CLIPTokenizer

    check_files(model)
    find(model)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(model, subfolder=subfolder, revision=revision)
        if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what comes of no files
            raise OSError("there are no files of one")
    except (OSError, ValueError, TypeError) as error:
        advice = "name the model that you are going to fine-tune" if subfolder else "name another"
        raise UserError(
            f"{model} has no tokenizer that can be read ({reason_of(error)}); {advice}."
        ) from error
    return tokenizer


def token_counter(
    model: str, revision: str | None = None, subfolder: str = "tokenizer", most: int | None = None
) -> CountTokens:
    """Counts with the tokenizer that `tokenizer_of` finds.

    The counter maps texts to token counts, start and end included, and the words beyond the last
    token that is read: token `most`, or as many as the tokenizer says. Raises `UserError` where
    there is no such tokenizer.
    """
    tokenizer = tokenizer_of(model, revision, subfolder)
    most = most or tokenizer.model_max_length

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


def resolution_of(model: str, revision: str | None = None) -> int | None:
    """Pixels a side of what a model folder or hub id draws, and so of what it learns from; None
    where its configs cannot be had or do not say."""
    try:
        return picture_side(*(_config(model, part, revision) for part in ("unet", "vae")))
    except (OSError, ValueError):
        return None


def _config(model: str, part: str, revision: str | None) -> object:
    """The config of a part of a model, here or on the hub."""
    from huggingface_hub import hf_hub_download

    path = Path(model) / part / "config.json"
    if not is_folder(model):
        path = hf_hub_download(model, "config.json", subfolder=part, revision=revision)
    return read(path)
