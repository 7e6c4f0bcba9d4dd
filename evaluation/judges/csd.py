"""CSD, a style encoder (Somepalli et al. 2024, "Measuring Style Similarity in Diffusion Models"):
OpenAI's CLIP vision tower with one linear layer for style and one for content."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from evaluation.judges.encoder import CLIP, FileEncoder, center_square, pixels_of

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from core.strict_weights import Shapes

HEAD = 64  # width of an attention head in every CLIP of OpenAI
BLOCK = re.compile(r"backbone\.transformer\.resblocks\.(\d+)\.")


class Csd(FileEncoder):
    """Style features of length 1. The tensors' shapes tell ViT-L/14 from ViT-B/16, which differ in
    nothing else."""

    option = "--judge csd="
    holds = "CSD's vision transformer as safetensors"

    @classmethod
    def network(cls, shapes: Shapes) -> torch.nn.Module:
        import torch
        from open_clip.transformer import QuickGELU, VisionTransformer
        from torch.nn.functional import normalize

        sizes, outputs = _sizes(shapes)

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.backbone = VisionTransformer(
                    **sizes, mlp_ratio=4.0, act_layer=QuickGELU, output_dim=outputs
                )
                self.backbone.proj = None
                for name in ("last_layer_style", "last_layer_content"):
                    weight = torch.empty(sizes["width"], outputs)
                    setattr(self, name, torch.nn.Parameter(weight))

            def forward(self, pixels: torch.Tensor) -> torch.Tensor:  # float N,3,H,W -> N,D
                return normalize(self.backbone(pixels) @ self.last_layer_style)

        return Model()

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        side = self.model.backbone.image_size[0]
        return pixels_of(center_square(image, side, side), CLIP)


def _sizes(shapes: Shapes) -> tuple[dict[str, int], int]:
    """Arguments of the vision tower, and the number of style features."""
    convolution = _of(shapes, "backbone.conv1.weight", 4)
    tokens, _ = _of(shapes, "backbone.positional_embedding", 2)
    _, outputs = _of(shapes, "last_layer_style", 2)
    width, _, _, patch = convolution
    side = math.isqrt(max(tokens - 1, 0))
    blocks = {int(found[1]) for name in shapes if (found := BLOCK.match(name))}
    if not all((width, patch, side, blocks)) or width % HEAD or side**2 != tokens - 1:
        raise ValueError("its sizes are those of no CLIP")
    sizes = {"image_size": side * patch, "patch_size": patch, "width": width,
             "layers": len(blocks), "heads": width // HEAD}  # fmt: skip
    return sizes, outputs


def _of(shapes: Shapes, name: str, dimensions: int) -> tuple[int, ...]:
    if name not in shapes:
        raise ValueError(f"it has no {name}")
    if len(shapes[name]) != dimensions:
        raise ValueError(f"{name} has {len(shapes[name])} dimensions, not {dimensions}")
    return shapes[name]
