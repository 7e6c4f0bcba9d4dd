"""Judges of pictures of things: what is where, in which colour, and how many.

A picture of flat things is cut at its background: what differs from the border is shown. The part
of the picture that is asked about is cut to what it shows, and a small classifier names the thing
and its colour; another one counts. Both learn from drawings, and are judged on others before their
word on generated pictures counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks.attributes import reconstructed, tensor
from bundled.canvas import PALETTE
from bundled.fit import fit
from bundled.icons import Icons
from bundled.scenes import random_scene

SIDE = 64  # of what a classifier sees
SHOWN = 28  # difference from the background, 0..255, from which a pixel is part of a thing
OWN = "own"  # the colour of a thing that was not changed
COLOURS = (OWN, *PALETTE)
BATCH = 128
PER_THING = 40  # pictures that teach one thing
PARTS = {  # of a picture, in 0..1: left, top, right, bottom
    "whole": (0.0, 0.0, 1.0, 1.0),
    "left": (0.0, 0.0, 0.5, 1.0), "right": (0.5, 0.0, 1.0, 1.0),
    "top": (0.0, 0.0, 1.0, 0.5), "bottom": (0.0, 0.5, 1.0, 1.0),
}  # fmt: skip
PLACES = {"beside": ("left", "right"), "above": ("top", "bottom"), None: ("whole",)}


def cut(image: Image.Image, part: str) -> Image.Image:
    """What a part of a picture shows, as a square of SIDE, its background around it."""
    left, top, right, bottom = (round(edge * image.width) for edge in PARTS[part])
    pixels = np.asarray(image, dtype=float)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    background = np.median(border, axis=0)
    shown = np.abs(pixels - background).max(axis=2)[top:bottom, left:right] > SHOWN
    ys, xs = np.nonzero(shown)
    if len(xs):
        left, right = left + int(xs.min()), left + int(xs.max()) + 1
        top, bottom = top + int(ys.min()), top + int(ys.max()) + 1
    side = max(right - left, bottom - top) + 4
    square = Image.new("RGB", (side, side), tuple(int(part) for part in background))
    inside = image.crop((left, top, right, bottom))
    square.paste(inside, ((side - inside.width) // 2, (side - inside.height) // 2))
    return square.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


class Network(torch.nn.Module):
    """float N,3,64,64 in -1..1 -> logits of each head."""

    def __init__(self, heads: dict[str, int]):
        super().__init__()
        layers = []
        for before, after in pairwise((3, 32, 64, 128, 192)):
            layers += [torch.nn.Conv2d(before, after, 4, stride=2, padding=1),
                       torch.nn.GroupNorm(8, after), torch.nn.SiLU()]  # fmt: skip
        self.features = torch.nn.Sequential(*layers, torch.nn.Flatten())
        self.heads = torch.nn.ModuleDict(
            {name: torch.nn.Linear(192 * 16, count) for name, count in heads.items()}
        )

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        flat = self.features(images)
        return {name: head(flat) for name, head in self.heads.items()}

    @torch.inference_mode()
    def judge(self, images: Sequence[Image.Image]) -> dict[str, list[int]]:
        """The number of the value of each head for each picture."""
        logits = self(tensor(images).float() / 127.5 - 1)
        return {name: values.argmax(1).tolist() for name, values in logits.items()}


class Judge:
    """Names the things of a picture and their colours, and counts them."""

    def __init__(self, icons: Icons, vae: AutoencoderKL, folder: Path):
        self.icons, count = icons, len(icons.things)
        self.namer = trained(
            Network({"thing": count, "colour": len(COLOURS)}),
            self._named(), vae, folder / "namer", count * PER_THING, 8,
        )  # fmt: skip
        self.counter = trained(
            Network({"count": 3}), self._counted(), vae, folder / "counter", 8_000, 6
        )

    def things(self, images: Sequence[Image.Image], parts: Sequence[str]) -> list[tuple[int, str]]:
        """Number and colour of the thing that each picture shows in that part of it."""
        cuts = [cut(image, part) for image, part in zip(images, parts, strict=True)]
        seen = self.namer.judge(cuts)
        colours = [COLOURS[number] for number in seen["colour"]]
        return list(zip(seen["thing"], colours, strict=True))

    def counts(self, images: Sequence[Image.Image]) -> list[int]:
        seen = self.counter.judge([small(image) for image in images])
        return [number + 1 for number in seen["count"]]

    def _named(self) -> Iterator[tuple[Image.Image, dict[str, int]]]:
        """Parts of drawings and what they show."""
        for seed in range(10**9):
            rng = Random(f"judge {seed}")
            kind = rng.choice(("one", "one", "two"))
            scene = random_scene(self.icons, kind, rng)
            image = scene.draw(self.icons, rng)
            for item, part in zip(scene.items, PLACES[scene.relation], strict=True):
                if item.count == 1:
                    colour = COLOURS.index(item.colour or OWN)
                    yield cut(image, part), {"thing": item.thing, "colour": colour}

    def _counted(self) -> Iterator[tuple[Image.Image, dict[str, int]]]:
        for seed in range(10**9):
            rng = Random(f"count {seed}")
            kind = rng.choice(("one", "several", "several"))
            scene = random_scene(self.icons, kind, rng)
            yield small(scene.draw(self.icons, rng)), {"count": scene.items[0].count - 1}


def small(image: Image.Image) -> Image.Image:
    return image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def trained(
    network: Network, examples: Iterator, vae: AutoencoderKL, folder: Path, count: int, epochs: int
) -> Network:
    """The network after it has seen `count` examples `epochs` times; kept in `folder`.

    Every other example has gone through `vae`, so that the softness of a decoder does not count.
    """
    torch.manual_seed(3)
    images, labels = examples_in(examples, vae, folder, count)

    def loss_at(step: int) -> torch.Tensor:
        rows = torch.tensor(Random(step).sample(range(len(images)), BATCH))
        logits = network(images[rows].float() / 127.5 - 1)
        return sum(F.cross_entropy(logits[name].float(), labels[name][rows]) for name in logits)

    steps = count * epochs // BATCH
    fit(network, loss_at, steps=steps, learning_rate=0.01, folder=folder / "network")
    return network


def examples_in(
    examples: Iterator, vae: AutoencoderKL, folder: Path, count: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """uint8 N,3,64,64 and the values of each head; kept in `folder`."""
    saved = folder / "examples.safetensors"
    if not saved.exists():
        some = [next(examples) for _ in range(count)]
        images = tensor([image for image, _ in some])
        images[::2] = torch.cat([reconstructed(vae, part) for part in images[::2].split(256)])
        labels = {name: torch.tensor([about[name] for _, about in some]) for name in some[0][1]}
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"images": images.contiguous(), **labels}, saved)
    tensors = load_file(saved)
    return tensors.pop("images"), tensors
