"""Style that is not content: CSD (Somepalli et al. 2024, "Measuring Style Similarity in Diffusion
Models"), the vision tower of a CLIP of OpenAI with a linear layer for style and one for content."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from evaluation.judge import CLIP, FileEncoder, middle_of, pixels_of

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from core.strict_weights import Shapes

HEAD = 64  # numbers of an attention head, in every CLIP of OpenAI
BLOCK = re.compile(r"backbone\.transformer\.resblocks\.(\d+)\.")


class Csd(FileEncoder):
    """The style of pictures: features of length 1. Its sizes are read off the tensors, as those of
    ViT-L/14 and of ViT-B/16 differ in nothing else."""

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
        return pixels_of(middle_of(image, side, side), CLIP)


def _sizes(shapes: Shapes) -> tuple[dict[str, int], int]:
    """Of the tower, and the length of what its layer for style gives."""
    first = _of(shapes, "backbone.conv1.weight", 4)
    tokens, _ = _of(shapes, "backbone.positional_embedding", 2)
    _, outputs = _of(shapes, "last_layer_style", 2)
    width, _, _, patch = first
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
