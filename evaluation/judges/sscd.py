"""SSCD, a copy-detection encoder (Pizzi et al. 2022, "A Self-Supervised Descriptor for Image Copy
Detection")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.judges.encoder import IMAGENET, FileEncoder, pixels_of

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from core.strict_weights import Shapes

SIDE = 320  # pixels; pictures are squeezed into a square of one of the two recommended sizes
DIMENSIONS = 512
GEM = 3.0  # exponent of the generalised mean


class Sscd(FileEncoder):
    """torchvision's ResNet-50 with generalised-mean pooling and a linear layer, the layout in which
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
