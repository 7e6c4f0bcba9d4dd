"""DINO (Caron et al. 2021), DreamBooth's measure of subject fidelity (Ruiz et al. 2023, table 1),
and DINOv2 (Oquab et al. 2023), whose features give the set distances that agree best with people
(Stein et al. 2023, "Exposing flaws of generative model evaluation metrics")."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from core import strict_weights
from core.model_check import check_files
from core.paths import is_folder
from evaluation.features import unit
from evaluation.judges.encoder import IMAGENET, ImageEncoder, center_square, pixels_of
from evaluation.transformers_models import WEIGHTS, check_kind, open_whole

if TYPE_CHECKING:
    import torch
    from numpy import ndarray
    from PIL import Image
    from transformers import PreTrainedModel

SIDE = 224  # pixels of DINOv2's input, into which Stein et al. squeeze pictures
SHORTER = 256 / 224  # DINO's input is a center crop; its resize is larger by this factor


class _VisionTransformer(ImageEncoder):
    """A vision transformer saved by transformers; its features are the class token after the last
    layer norm."""

    kind: ClassVar[str]  # `model_type` in config.json

    @classmethod
    def examine(cls, path: str) -> None:
        folder = Path(path)
        if not is_folder(folder):
            raise ValueError("no folder is there")
        check_files(folder)
        check_kind(folder, cls.kind)
        files = sorted(folder.glob(WEIGHTS))
        if not files:
            raise ValueError("it has no model.safetensors, the only kind of weights that is read")
        for file in files:
            strict_weights.shapes_of(file)

    @staticmethod
    def _class_token(model: PreTrainedModel) -> torch.nn.Module:
        import torch

        class ClassToken(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, pixels: torch.Tensor) -> torch.Tensor:  # float N,3,H,W -> N,D
                return self.model(pixel_values=pixels).last_hidden_state[:, 0]

        return ClassToken()


class Dino(_VisionTransformer):
    """Content features of length 1."""

    option = "--judge dino="
    holds = "a ViTModel of transformers, such as DINO's ViT-S/16"
    kind = "vit"

    @classmethod
    def open(cls, path: str) -> torch.nn.Module:
        from transformers import ViTModel

        # Published folders often hold a pooler, which the class token does not need.
        vit = open_whole(ViTModel, Path(path), spare=("pooler.",), add_pooling_layer=False)
        return cls._class_token(vit)

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        side = self.model.model.config.image_size
        return pixels_of(center_square(image, round(side * SHORTER), side), IMAGENET)

    def features(self, images: Sequence[Image.Image]) -> ndarray:
        return unit(super().features(images))


class Dinov2(_VisionTransformer):
    """Content features, not normalised: the Frechet distance needs their length."""

    option = "--judge dinov2="
    holds = "a Dinov2Model of transformers, such as DINOv2's ViT-L/14"
    kind = "dinov2"

    @classmethod
    def open(cls, path: str) -> torch.nn.Module:
        from transformers import Dinov2Model

        return cls._class_token(open_whole(Dinov2Model, Path(path), spare=()))

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        from PIL import Image

        return pixels_of(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), IMAGENET)
