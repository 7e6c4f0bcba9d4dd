"""A CLIP in the files of transformers, as PickScore and most CLIPs of the hub are published, behind
the names that open_clip gives to the same parts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError, reason_of
from core.model_check import check_files
from evaluation.transformers_folder import CONFIG_FILE as CONFIG_FILE
from evaluation.transformers_folder import WEIGHTS, check_kind, open_whole

if TYPE_CHECKING:
    import torch
    from PIL import Image

TOKENIZERS = "tokenizer.json", "vocab.json"


def check_folder(folder: Path) -> None:
    """Raise UserError for a folder without weights or tokenizer, before anything is opened."""
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


def open_folder(folder: Path) -> tuple:
    """(model, preprocess, tokenizer). Raises UserError for weights that do not fit the config."""
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    check_folder(folder)
    check_files(folder)
    try:
        check_kind(folder, "clip")
        clip = open_whole(CLIPModel, folder)
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers and what it calls raise every kind
        raise UserError(f"Cannot open scorer {folder}: {reason_of(error)}.") from error
    length = clip.config.text_config.max_position_embeddings
    return _model(clip), _Preprocess(processor), _Tokenizer(tokenizer, length)


def _model(clip: torch.nn.Module) -> torch.nn.Module:
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
    """The folder's own: an RGB picture -> float 3,H,W."""

    def __init__(self, processor):
        self._processor = processor

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return self._processor(image, return_tensors="pt")["pixel_values"][0]


class _Tokenizer:
    """int N,L of captions, cut to `context_length` and padded to it: what comes after its end a
    CLIP does not read."""

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
