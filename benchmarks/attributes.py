"""Judges of pictures of creatures: a classifier of parts, and a reader of colours from pixels.

The classifier learns from drawings whose parts are known, and is judged on others that it has not
seen before its word on generated pictures counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file, save_file

from bundled import creatures
from bundled.canvas import PALETTE
from bundled.creatures import Creature
from bundled.fit import fit

COLOURS = tuple(PALETTE)
HEADS = {  # attribute -> its values
    "ears": (False, True),
    "horns": (False, True),
    "wings": (False, True),
    "wing_colour": (None, *COLOURS),
    "tail": (None, *creatures.TAILS),
}
TRAINING_SEEDS = range(60_000_000, 60_006_000)
BATCH = 64


def truth(creature: Creature) -> dict:
    """The value of each attribute of a creature."""
    return {
        "ears": creature.ears is not None,
        "horns": creature.horns > 0,
        "wings": creature.wings is not None,
        "wing_colour": creature.wing_colour,
        "tail": creature.tail,
    }


class AttributeClassifier(torch.nn.Module):
    """A convolutional network: float N,3,128,128 in -1..1 -> logits per attribute."""

    def __init__(self):
        super().__init__()
        layers, widths = [], (3, 32, 64, 96, 128)
        for before, after in pairwise(widths):
            layers += [
                torch.nn.Conv2d(before, after, 4, stride=2, padding=1),
                torch.nn.GroupNorm(8, after),
                torch.nn.SiLU(),
            ]
        layers += [torch.nn.Conv2d(128, 128, 3, padding=1), torch.nn.SiLU()]
        self.features = torch.nn.Sequential(*layers)  # N,128,8,8
        self.heads = torch.nn.ModuleDict(
            {name: torch.nn.Linear(128 * 16, len(values)) for name, values in HEADS.items()}
        )

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        flat = F.adaptive_avg_pool2d(self.features(images), 4).flatten(1)
        return {name: head(flat) for name, head in self.heads.items()}

    @torch.inference_mode()
    def judge(self, images: Sequence[Image.Image]) -> list[dict]:
        """The value of each attribute of each picture."""
        logits = self(tensor(images).float() / 127.5 - 1)
        choices = {name: values.argmax(1).tolist() for name, values in logits.items()}
        return [{name: HEADS[name][choices[name][i]] for name in HEADS} for i in range(len(images))]


def trained(folder: Path, vae: AutoencoderKL, steps: int = 500) -> AttributeClassifier:
    """The classifier, trained on drawings of both looks; its state is kept in `folder`.

    Half of the drawings have gone through `vae`, so that the softness of a decoder does not count
    as a missing part.
    """
    torch.manual_seed(2)
    classifier = AttributeClassifier()
    images, labels = training_set(vae, folder)

    def loss_at(step: int) -> torch.Tensor:
        rows = torch.tensor(Random(step).sample(range(len(images)), BATCH))
        logits = classifier(images[rows].float() / 127.5 - 1)
        return sum(F.cross_entropy(logits[name].float(), labels[name][rows]) for name in HEADS)

    fit(classifier, loss_at, steps=steps, learning_rate=0.01, folder=folder / "classifier")
    return classifier


def training_set(vae: AutoencoderKL, folder: Path) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """uint8 N,3,128,128, kept in `folder`, and the index of each attribute's value."""
    values = [truth(Creature.random(rng)) for rng in map(_rng, TRAINING_SEEDS)]
    labels = {
        name: torch.tensor([choices.index(value[name]) for value in values])
        for name, choices in HEADS.items()
    }
    saved = folder / "pictures.safetensors"
    if not saved.exists():
        images = tensor([creatures.draw(_look(seed), seed).image for seed in TRAINING_SEEDS])
        images[::2] = torch.cat([reconstructed(vae, part) for part in images[::2].split(64)])
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"images": images.contiguous()}, saved)
    return load_file(saved)["images"], labels


@torch.inference_mode()
def reconstructed(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """uint8 N,3,128,128 -> the same pictures through encoder and decoder."""
    pixels = vae.decode(vae.encode(images.float() / 127.5 - 1).latent_dist.mean).sample
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _look(seed: int) -> str:
    return "plain" if seed % 4 == 3 else "pokemon"


def _rng(seed: int) -> Random:
    return creatures.rng_of(_look(seed), seed)


def tensor(images: Sequence[Image.Image]) -> torch.Tensor:
    """uint8 N,3,H,W."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
