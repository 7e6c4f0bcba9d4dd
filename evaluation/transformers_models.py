"""Models saved by transformers: loaded completely or refused; a CLIP among them behaves like one
of open_clip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from core import bounded_json
from core.errors import UserError, reason_of
from core.model_check import check_files
from core.paths import is_file
from core.terminal import silent_log

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from transformers import PreTrainedModel

CONFIG_FILE = "config.json"
WEIGHTS = "model*.safetensors"  # one file, or shards with an index
TOKENIZERS = "tokenizer.json", "vocab.json"
FAULTS = "missing_keys", "mismatched_keys", "unexpected_keys"


def check_kind(folder: Path, kind: str) -> None:
    """Raise ValueError unless the folder's config.json has this `model_type`."""
    if not is_file(folder / CONFIG_FILE):
        raise ValueError(f"it has no {CONFIG_FILE}")
    config = bounded_json.read(folder / CONFIG_FILE)
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != kind:
        raise ValueError(f"its {CONFIG_FILE} is of a {found!r:.40}, not of a '{kind}'")


def open_whole(
    model: type[PreTrainedModel], folder: Path, *, spare: tuple[str, ...] | None = None, **options
) -> PreTrainedModel:
    """The folder's weights, in fp32. Raises ValueError that names tensors which are missing or
    mismatched, and unexpected ones unless `spare` is None or has a prefix of their name."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    with silent_log():
        try:
            opened, report = model.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # otherwise the error is a table
                **options,
            )
        except Exception as error:  # a config can make transformers raise anything
            raise ValueError(reason_of(error)) from error
    for fault in FAULTS[: None if spare is not None else 2]:
        keys = [key[0] if fault == "mismatched_keys" else key for key in report[fault]]
        if names := sorted(name for name in keys if not name.startswith(spare or ())):
            raise ValueError(f"{fault.replace('_', ' ')}: {', '.join(names[:3])}")
    return opened.float()


def check_clip(folder: Path) -> None:
    """Raise UserError for a CLIP folder without weights or tokenizer, before anything is loaded."""
    if not any(folder.glob(WEIGHTS)):
        raise UserError(
            f"Scorer folder {folder} has no model.safetensors, the only kind of weights that is "
            "read. Add it or try another folder."
        )
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise UserError(
            f"Scorer folder {folder} has no tokenizer.json. Add the tokenizer's files, which may "
            "be those of the CLIP that it was made from."
        )


def open_clip_folder(folder: Path) -> tuple:
    """A CLIP as (model, preprocess, tokenizer) with open_clip's interface. Raises UserError for
    weights that do not fit the config."""
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    check_clip(folder)
    check_files(folder)
    try:
        check_kind(folder, "clip")
        clip = open_whole(CLIPModel, folder)
        tokenizer, processor = (
            _from_folder(each, folder) for each in (CLIPTokenizer, CLIPImageProcessor)
        )
    except (OSError, ValueError) as error:
        reason = reason_of(error).rstrip(".: ")
        raise UserError(f"Cannot open scorer {folder}: {reason}.") from error
    length = clip.config.text_config.max_position_embeddings
    return _with_names_of_open_clip(clip), _Preprocess(processor), _Tokenizer(tokenizer, length)


def _from_folder(kind, folder: Path):
    """A tokenizer or image processor. Raises ValueError for files that transformers cannot read."""
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a damaged file can make transformers raise anything
        raise ValueError(reason_of(error)) from error


def _with_names_of_open_clip(clip: torch.nn.Module) -> torch.nn.Module:
    from torch import nn

    class Model(nn.Module):
        """encode_image: float N,3,H,W -> N,D. encode_text: int N,L -> N,D."""

        def __init__(self):
            super().__init__()
            self.clip = clip

        def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.clip.get_image_features(pixel_values=pixels).pooler_output

        def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
            return self.clip.get_text_features(input_ids=ids).pooler_output

    return Model()


class _Preprocess:
    """The folder's image processor: an RGB picture -> float 3,H,W."""

    def __init__(self, processor):
        self._processor = processor

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return self._processor(image, return_tensors="pt")["pixel_values"][0]


class _Tokenizer:
    """Captions -> int N,L, truncated and padded to `context_length`; a CLIP ignores what follows
    the end token."""

    def __init__(self, tokenizer, context_length: int):
        self._tokenizer, self.context_length = tokenizer, context_length

    def __call__(self, texts: str | list[str], context_length: int | None = None) -> torch.Tensor:
        return self._tokenizer(
            [texts] if isinstance(texts, str) else texts,
            padding="max_length",
            truncation=True,
            max_length=context_length or self.context_length,
            return_tensors="pt",
        )["input_ids"]
