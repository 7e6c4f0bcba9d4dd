"""The encoded data set: buckets of latents and captions, and the batch of each step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from training.config import Config
from training.dataset import (
    bucket_of,
    order,
    order_apart,
    pictures_per_step,
    random_at,
)
from training.latent_cache import CachedTensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from training.dataset import CaptionedImages

ENCODE_PIXELS = 4 * 512 * 512  # encoded at once

# What a step, or a part of it, learns from: tensors with a row per picture.
# x_0: float32 R,C,h,w, or with --no_cache pixels: uint8 R,3,H,W and noise: float32 R,C,h,w
# prompt: int64 R,T token ids or float32 R,T,D embeddings;  weight: float32 R, of each row's loss
# the loop adds eps: float32 R,C,h,w and t: int64 R
Batch = dict[str, torch.Tensor]
Choices = list[list[int]]  # of each picture: the rows of its captions


@dataclass(frozen=True)
class Bucket:
    """Latents of pictures of one shape, as mean and standard deviation: each epoch draws new
    noise."""

    shape: tuple[int, int]  # H, W in pixels
    numbers: np.ndarray  # int64 n, of its pictures in the data set
    # float16 n,V,C,h,w, scaled for the UNet; V is 2 with mirrored ones.
    mean: torch.Tensor | CachedTensor | None = None  # None: not encoded
    std: torch.Tensor | CachedTensor | None = None

    def __len__(self) -> int:
        return len(self.numbers)


class Latents:
    """The data set as the UNet sees it.

    `buckets` hold its pictures by shape. `prompts` are all captions, P,T token ids or float P,T,D
    embeddings, the empty one first; `choices[i]` are the rows of the captions of picture i.
    """

    rows_per_picture = 1

    def __init__(
        self,
        images: CaptionedImages,
        buckets: list[Bucket],
        prompts: torch.Tensor,
        choices: Choices,
        vae: AutoencoderKL,
        config: Config,
    ):
        self.images, self.buckets, self.prompts, self.choices = images, buckets, prompts, choices
        self.vae, self.config = vae, config
        self.fingerprint = images.fingerprint
        self.held_out: Latents | None = None

    def __len__(self) -> int:
        return len(self.images)

    def pictures_per_step(self, size: int) -> float:
        """The mean batch size of steps of `size` pictures, since some buckets are smaller."""
        if not self.config.aspect_ratio_buckets:
            return size
        return pictures_per_step([len(bucket) for bucket in self.buckets], size)

    def names(self, step: int, size: int) -> list[str]:
        """Files of the pictures of a step, in the order of its rows."""
        return [self.images.names[number] for number in self._at(step, size)[1]]

    def batch(self, step: int, size: int) -> Batch:
        """The whole batch of a step: `size` pictures, or all of a smaller bucket.

        A function of (seed, step, position in the batch), independent of earlier steps.
        """
        bucket, pictures, places = self._at(step, size)
        size = len(pictures)
        random = random_at(self.config.seed, "batch", step)
        variants = 2 if self.config.random_flip else 1
        mirrored = random.integers(variants, size=size)
        which, dropped = random.random(size), random.random(size) < self.config.empty_captions
        shape = (size, *latent_shape(self.vae, bucket.shape))
        noise = torch.from_numpy(random.standard_normal(shape, dtype=np.float32))
        prompts = [
            0 if drop else self.choices[picture][int(draw * len(self.choices[picture]))]
            for picture, draw, drop in zip(pictures, which, dropped, strict=True)
        ]
        batch = {"prompt": self.prompts[prompts], "weight": torch.ones(size)}
        if bucket.mean is None or bucket.std is None:
            crops = [None] * size if self.config.center_crop else random.random((size, 2))
            pixels = self._pixels(pictures, bucket, mirrored, crops)
            return batch | {"pixels": pixels, "noise": noise}
        mean, std = (part[places, mirrored].float() for part in (bucket.mean, bucket.std))
        return batch | {"x_0": mean + std * noise}

    def encoded(self, part: Batch) -> torch.Tensor:
        """x_0 of rows on the device: float32 R,C,h,w."""
        if "x_0" in part:
            return part["x_0"]
        mean, std = posterior_of(self.vae, part["pixels"])
        return mean + std * part["noise"]

    def clean(self, limit: int) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
        """The first `limit` pictures without noise and not mirrored, in parts of one shape:
        their numbers, x_0 float32 R,C,h,w and prompts R,T[,D] of their first captions."""
        for bucket in self.buckets:
            size = pictures_at_once(bucket.shape)
            places = [place for place, number in enumerate(bucket.numbers) if number < limit]
            for first in range(0, len(places), size):
                several = places[first : first + size]
                numbers = [int(bucket.numbers[place]) for place in several]
                if bucket.mean is None:
                    (pixels,) = self.images.batches(size, bucket.shape, numbers)
                    x_0, _ = posterior_of(self.vae, pixels.to(self.vae.device))
                else:
                    x_0 = bucket.mean[several, 0].float()
                yield numbers, x_0, self.prompts[[self.choices[number][0] for number in numbers]]

    def _at(self, step: int, size: int) -> tuple[Bucket, list[int], list[int]]:
        """The bucket of a step, its pictures, and their places in the bucket."""
        if self.config.aspect_ratio_buckets:
            sizes = tuple(len(bucket) for bucket in self.buckets)
            number, first, several = bucket_of(self.config.seed, sizes, size, step)
            bucket = self.buckets[number]
            places = order_apart(self.config.seed, len(bucket), first, several)
        else:
            (bucket,) = self.buckets
            places = order(self.config.seed, len(bucket), step * size, size)
        return bucket, [int(bucket.numbers[place]) for place in places], places

    def _pixels(self, pictures, bucket: Bucket, mirrored, crops) -> torch.Tensor:
        drawn = [
            self.images.pixels(number, bucket.shape, None if crop is None else tuple(crop))
            for number, crop in zip(pictures, crops, strict=True)
        ]
        flipped = [
            pixels.flip(-1) if mirror else pixels
            for pixels, mirror in zip(drawn, mirrored, strict=True)
        ]
        return torch.stack(flipped)


def latent_shape(vae: AutoencoderKL, shape: tuple[int, int]) -> tuple[int, int, int]:
    """C, h, w of the latents of a picture of `shape` H, W."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    return vae.config.latent_channels, shape[0] // factor, shape[1] // factor


def pictures_at_once(shape: tuple[int, int]) -> int:
    """The number of pictures of this height and width that are encoded at once."""
    return max(1, ENCODE_PIXELS // (shape[0] * shape[1]))


@torch.no_grad()
def posterior_of(vae: AutoencoderKL, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 N,3,H,W in 0..255 -> mean and deviation, float32 N,C,h,w, scaled for the UNet."""
    posterior = vae.encode(pixels.float() / 127.5 - 1).latent_dist
    scale = vae.config.scaling_factor
    return posterior.mean.float() * scale, posterior.std.float() * scale
