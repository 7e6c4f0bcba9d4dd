"""Weight files of judges: networks of the very classes, tiny where their sizes are not fixed, with
random weights."""

from pathlib import Path

import numpy as np
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import resnet50
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def csd_file(folder: Path, seed: int = 0, **changed: torch.Tensor) -> str:
    """Two blocks of one head each, for pictures of 32 pixels."""
    torch.manual_seed(seed)
    tower = VisionTransformer(
        image_size=32, patch_size=8, width=64, layers=2, heads=1, mlp_ratio=4.0, output_dim=16,
        act_layer=QuickGELU,
    )  # fmt: skip
    weights = {f"backbone.{name}": tensor for name, tensor in tower.state_dict().items()}
    weights["last_layer_style"] = weights.pop("backbone.proj")
    weights["last_layer_content"] = torch.randn(64, 16)
    return saved(folder / "csd.safetensors", weights | changed)


def sscd_file(folder: Path, seed: int = 0) -> str:
    torch.manual_seed(seed)
    weights = resnet50(num_classes=512).state_dict()
    for name, tensor in weights.items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
    return saved(folder / "sscd.safetensors", {f"backbone.{n}": t for n, t in weights.items()})


def dino_folder(folder: Path, seed: int = 0) -> str:
    torch.manual_seed(seed)
    config = ViTConfig(**TINY, intermediate_size=64, image_size=32, patch_size=8)
    vit = ViTModel(config)  # with a pooler, as some are published
    torch.nn.init.normal_(vit.embeddings.position_embeddings)
    vit.save_pretrained(folder / "dino")
    return str(folder / "dino")


def dinov2_folder(folder: Path, seed: int = 0) -> str:
    torch.manual_seed(seed)
    Dinov2Model(Dinov2Config(**TINY, image_size=224, patch_size=56)).save_pretrained(
        folder / "dinov2"
    )
    return str(folder / "dinov2")


def saved(path: Path, weights: dict[str, torch.Tensor]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    return str(path)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def normalised(image: Image.Image, mean: tuple, deviation: tuple) -> torch.Tensor:
    """float 1,3,H,W, written without torchvision."""
    pixels = np.asarray(image, dtype=np.float64) / 255
    pixels = (pixels - np.array(mean)) / np.array(deviation)
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None]).float()
