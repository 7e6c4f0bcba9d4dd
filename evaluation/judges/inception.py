"""Inception v3, in whose features FID is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.judges.encoder import FileEncoder, pixels_of

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from core.strict_weights import Shapes

SIDE = 299  # pixels of its input
HALVES = (0.5,) * 3, (0.5,) * 3  # mean and standard deviation: pixels become -1..1


class Inception(FileEncoder):
    """torchvision's Inception v3 up to its last pooling. Papers give FID by the weights of the
    TensorFlow original, which is another number."""

    option = "--inception "
    holds = "torchvision's inception_v3 as safetensors"
    way_out = "Convert its weights, or leave it out."

    @classmethod
    def network(cls, shapes: Shapes) -> torch.nn.Module:
        from torchvision.models import inception_v3

        aux = any(name.startswith("AuxLogits.") for name in shapes)
        return inception_v3(weights=None, aux_logits=aux, init_weights=False)

    @classmethod
    def open(cls, path: str) -> torch.nn.Module:
        import torch

        model = super().open(path)
        model.fc = torch.nn.Identity()
        return model

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return pixels_of(image.resize((SIDE, SIDE)), HALVES)
