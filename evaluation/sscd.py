"""Copies by SSCD (Pizzi et al. 2022, "A Self-Supervised Descriptor for Image Copy Detection"), by
which Somepalli et al. (2022, "Diffusion Art or Digital Forgery?") measure what diffusion models
give back. It stands beside `memorisation`, which lays pictures on each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.judge import IMAGENET, FileEncoder, pixels_of

if TYPE_CHECKING:
    import torch
    from numpy import ndarray
    from PIL import Image

    from core.strict_weights import Shapes

SIDE = 320  # pixels; a square, whatever the picture was: one of the two sizes they recommend
DIMENSIONS = 512
GEM = 3.0  # power of the generalised mean
LIMIT = 0.5  # above which Somepalli et al. speak of replication
PART = 1024  # pictures compared at once


class Sscd(FileEncoder):
    """torchvision's ResNet-50 with pooling by a generalised mean and a linear layer, as
    sscd_disc_mixup is published for torchvision. Features have length 1."""

    option = "--judge sscd="
    holds = "SSCD's ResNet-50 for torchvision as safetensors"

    @classmethod
    def network(cls, shapes: Shapes) -> torch.nn.Module:
        from torch import Tensor, nn
        from torch.nn.functional import normalize
        from torchvision.models import resnet50

        class GeM(nn.Module):
            def forward(self, maps: Tensor) -> Tensor:  # float N,C,H,W -> N,C
                return maps.clamp(min=1e-6).pow(GEM).mean((2, 3)).pow(1 / GEM)

        class Model(nn.Module):
            def __init__(self):
                super().__init__()
                self.backbone = resnet50(num_classes=DIMENSIONS)
                self.backbone.avgpool = GeM()

            def forward(self, pixels: Tensor) -> Tensor:  # float N,3,H,W -> N,512
                return normalize(self.backbone(pixels))

        return Model()

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        from PIL import Image

        return pixels_of(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR), IMAGENET)


@dataclass(frozen=True)
class Replication:
    """How like a picture is to the training picture that it is likest to, by SSCD."""

    nearest: tuple[tuple[int, float], ...]  # of each picture: its number there, and the similarity
    among: tuple[float, ...]  # of each training picture, the similarity to the likest other one

    @property
    def above(self) -> int:
        """Pictures above the published limit."""
        return sum(similarity > LIMIT for _, similarity in self.nearest)

    @property
    def above_among(self) -> int:
        """Training pictures that are above it with another one."""
        return sum(similarity > LIMIT for similarity in self.among)

    @property
    def closest(self) -> list[int]:
        """Numbers of the pictures, the likest first."""
        return sorted(range(len(self.nearest)), key=lambda number: -self.nearest[number][1])


def replication(made: ndarray, reference: ndarray) -> Replication:
    """Of pictures and training pictures by their features, float N,D and M,D of length 1."""
    import numpy as np

    numbers, highest, among = [], [], []
    for first in range(0, len(made), PART):
        cosines = made[first : first + PART] @ reference.T
        numbers += cosines.argmax(1).tolist()
        highest += cosines.max(1).tolist()
    for first in range(0, len(reference), PART):
        cosines = reference[first : first + PART] @ reference.T
        rows = np.arange(len(cosines))
        cosines[rows, first + rows] = -1.0  # a picture is no copy of itself
        among += cosines.max(1).tolist()
    return Replication(tuple(zip(numbers, highest, strict=True)), tuple(among))
