"""The bundled scorer: a small CLIP in open_clip's own classes, trained on drawings and captions.

It shares no weights with the models that it scores, and never sees a generated picture.
"""

from __future__ import annotations

import json
import math
from itertools import accumulate
from pathlib import Path
from random import Random

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from bundled.fit import fit
from core.files import replaced

IMAGE_SIZE = 96  # pixels a side; pictures of 128 px are reduced to it
BATCH = 512
CONTEXT = 64
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def model_config(vocabulary: int) -> dict:
    """What open_clip_config.json calls `model_cfg`: a ResNet of 4 blocks and a text transformer."""
    return {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": IMAGE_SIZE,
            "layers": [1, 1, 1, 1],
            "width": 32,
            "head_width": 64,
        },
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": vocabulary,
            "hf_tokenizer_name": "clip",  # open_clip then reads the tokenizer beside this file
            "width": 192,
            "heads": 3,
            "layers": 3,
        },
    }


def train(
    pictures: torch.Tensor,
    captions: list[tuple[str, ...]],
    tokenizer: CLIPTokenizer,
    steps: int,
    folder: Path,
    target: Path,
    device: str = "cpu",
    seconds: float = math.inf,
) -> None:
    """Train on `pictures` (uint8 N,3,H,W) and the captions of each; write to folder `target`."""
    torch.manual_seed(1)
    model = open_clip.CLIP(**model_config(len(tokenizer))).to(device)
    small = torch.cat([reduced(batch.to(device)) for batch in pictures.split(256)])
    ids = tokens(tokenizer, [text for several in captions for text in several]).to(device)
    ends = [0, *accumulate(len(several) for several in captions)]

    def loss_at(step: int) -> torch.Tensor:
        rng = Random(step)
        rows = rng.sample(range(len(small)), min(BATCH, len(small)))
        images = normalised(moved(small[torch.tensor(rows, device=device)], rng))
        said = torch.tensor([rng.randrange(ends[row], ends[row + 1]) for row in rows])
        return contrastive_loss(*model(images, ids[said.to(device)]))

    fit(model, loss_at, steps=steps, learning_rate=0.01, folder=folder, seconds=seconds)
    save(model, tokenizer, target)


def reduced(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 N,3,H,W -> uint8 N,3,96,96, by the filter of open_clip's preprocessing."""
    small = F.interpolate(
        pictures.float(), size=(IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", antialias=True
    )
    return small.round().clamp(0, 255).to(torch.uint8)


def moved(images: torch.Tensor, rng: Random) -> torch.Tensor:
    """Shifted by up to 3 pixels and mirrored: a caption is true of either."""
    shifted = images.roll((rng.randint(-3, 3), rng.randint(-3, 3)), dims=(-2, -1))
    return shifted.flip(-1) if rng.random() < 0.5 else shifted


def normalised(images: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 -> float with the mean and deviation of `preprocess_cfg`."""
    return (images.float() / 255 - MEAN[0]) / STD[0]


def tokens(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """int64 N,CONTEXT; padded with the end token, as the text transformer expects."""
    return tokenizer(
        captions, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt"
    ).input_ids


def contrastive_loss(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Symmetric cross-entropy over the pairs of a batch (Radford et al. 2021, figure 3)."""
    logits = scale.clamp(max=100) * images.float() @ texts.float().T  # unit vectors N,D -> N,N
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def save(model: torch.nn.Module, tokenizer: CLIPTokenizer, target: Path) -> None:
    """The layout that open_clip opens as `local-dir:`; weights in fp16."""
    weights = {
        name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": model_config(len(tokenizer)), "preprocess_cfg": preprocess}
    with replaced(target) as staged:
        staged.mkdir(parents=True)
        save_file(weights, staged / "open_clip_model.safetensors")
        tokenizer.save_pretrained(staged)
        (staged / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
