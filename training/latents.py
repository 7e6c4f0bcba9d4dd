"""Encode images and captions once, keep, reuse."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from core.errors import UserError
from training.checkpoint_files import fingerprint_of
from training.dataset import (
    bucket_of,
    bucket_shape,
    order,
    order_apart,
    pictures_per_step,
    random_at,
)
from training.latent_cache import CachedTensor, CacheFile, CacheWriter, adopt, opened, unfinished
from training.model import embeddings_of

ENCODE_PIXELS = 4 * 512 * 512  # of all pictures that are encoded at once
EMBEDDING_BYTES = 4 * 2**30  # beyond this, captions are encoded anew at every step

# Tensors of as many rows: what a step, or a part of it, learns from.
# x_0: float32 R,C,h,w, or with --no_cache pixels: uint8 R,3,H,W and noise: float32 R,C,h,w
# prompt: int64 R,T token ids or float32 R,T,D embeddings;  weight: float32 R, of each row's loss
# the loop adds eps: float32 R,C,h,w and t: int64 R
Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Bucket:
    """Pictures of one shape, kept as mean and standard deviation: each epoch draws fresh noise."""

    shape: tuple[int, int]  # H, W in pixels
    numbers: np.ndarray  # int64 n, which of the data set
    # float16 n,V,C,h,w, scaled for the UNet; V is 2 when mirrored ones are kept too.
    mean: torch.Tensor | CachedTensor | None = None  # None: not encoded
    std: torch.Tensor | CachedTensor | None = None

    def __len__(self) -> int:
        return len(self.numbers)


class Latents:
    """The data set as the UNet sees it.

    `shelves` hold its pictures, by their shape. `prompts` are all captions, P,T token ids or
    float P,T,D embeddings, the empty one first; `choices[i]` are the rows that describe picture i.
    """

    rows_per_picture = 1

    def __init__(self, images, shelves: list[Bucket], prompts, choices, vae, config):
        self.images, self.shelves, self.prompts, self.choices = images, shelves, prompts, choices
        self.vae, self.config = vae, config
        self.fingerprint = images.fingerprint
        self.held_out: Latents | None = None

    def __len__(self) -> int:
        return len(self.images)

    def pictures_per_step(self, size: int) -> float:
        """On average, of steps of `size` pictures: some buckets have fewer."""
        if not self.config.aspect_ratio_buckets:
            return size
        return pictures_per_step([len(shelf) for shelf in self.shelves], size)

    def names(self, step: int, size: int) -> list[str]:
        """Files of the pictures of a step, in the order of its rows."""
        return [self.images.names[number] for number in self._at(step, size)[1]]

    def batch(self, step: int, size: int) -> Batch:
        """What the whole of step `step` learns from: `size` pictures, or a bucket that has fewer.

        A function of (seed, step, position in the batch), whatever was drawn before.
        """
        shelf, pictures, places = self._at(step, size)
        size = len(pictures)
        random = random_at(self.config.seed, "batch", step)
        variants = 2 if self.config.random_flip else 1
        mirrored = random.integers(variants, size=size)
        which, dropped = random.random(size), random.random(size) < self.config.empty_captions
        shape = (size, *latent_shape(self.vae, shelf.shape))
        noise = torch.from_numpy(random.standard_normal(shape, dtype=np.float32))
        prompts = [
            0 if drop else self.choices[picture][int(draw * len(self.choices[picture]))]
            for picture, draw, drop in zip(pictures, which, dropped, strict=True)
        ]
        batch = {"prompt": self.prompts[prompts], "weight": torch.ones(size)}
        if shelf.mean is None:
            crops = [None] * size if self.config.center_crop else random.random((size, 2))
            pixels = self._pixels(pictures, shelf, mirrored, crops)
            return batch | {"pixels": pixels, "noise": noise}
        mean, std = (kept[places, mirrored].float() for kept in (shelf.mean, shelf.std))
        return batch | {"x_0": mean + std * noise}

    def encoded(self, part: Batch) -> torch.Tensor:
        """x_0 of rows that are on the device: float32 R,C,h,w."""
        if "x_0" in part:
            return part["x_0"]
        mean, std = _encode(self.vae, part["pixels"])
        return mean + std * part["noise"]

    def still(self, most: int) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
        """The first `most` pictures as they are, without noise and not mirrored, in parts of one
        shape: their numbers, x_0 float32 R,C,h,w and prompts R,T[,D] of their first captions."""
        for shelf in self.shelves:
            size = pictures_at_once(shelf.shape)
            places = [place for place, number in enumerate(shelf.numbers) if number < most]
            for first in range(0, len(places), size):
                several = places[first : first + size]
                numbers = [int(shelf.numbers[place]) for place in several]
                if shelf.mean is None:
                    (pixels,) = self.images.batches(size, shelf.shape, numbers)
                    x_0, _ = _encode(self.vae, pixels.to(self.vae.device))
                else:
                    x_0 = shelf.mean[several, 0].float()
                yield numbers, x_0, self.prompts[[self.choices[number][0] for number in numbers]]

    def _at(self, step: int, size: int) -> tuple[Bucket, list[int], list[int]]:
        """The shelf of a step, its pictures, and their places on the shelf."""
        if self.config.aspect_ratio_buckets:
            sizes = tuple(len(shelf) for shelf in self.shelves)
            bucket, first, several = bucket_of(self.config.seed, sizes, size, step)
            shelf = self.shelves[bucket]
            places = order_apart(self.config.seed, len(shelf), first, several)
        else:
            (shelf,) = self.shelves
            places = order(self.config.seed, len(shelf), step * size, size)
        return shelf, [int(shelf.numbers[place]) for place in places], places

    def _pixels(self, pictures, shelf: Bucket, mirrored, crops) -> torch.Tensor:
        drawn = [
            self.images.pixels(number, shelf.shape, None if crop is None else tuple(crop))
            for number, crop in zip(pictures, crops, strict=True)
        ]
        flipped = [
            pixels.flip(-1) if mirror else pixels
            for pixels, mirror in zip(drawn, mirrored, strict=True)
        ]
        return torch.stack(flipped)


def encode_once(images, pipe, run) -> Latents:
    """Encode every picture and caption; then the encoders that do not learn leave the device.

    With --no_cache, captions alone. Held-out pictures come with the latents, encoded once.
    """
    config = images.config
    parts = [images, *([images.held_out] if images.held_out else [])]
    prompts, choices = _encode_captions([part.captions for part in parts], pipe, run)
    pipe.vae.to(run.device)
    latents = []
    for part, several in zip(parts, choices, strict=True):
        measured = part is not images
        how = replace(config, random_flip=False, no_cache=False) if measured else config
        shelves = _shelves(part, pipe, how)
        if not how.no_cache:
            shelves = [_filled(shelf, part, pipe.vae, how, run) for shelf in shelves]
        latents.append(Latents(part, shelves, prompts, several, pipe.vae, how))
    if not config.no_cache:
        pipe.vae.to("cpu")
    latents[0].held_out = latents[1] if latents[1:] else None
    return latents[0]


def _shelves(images, pipe, config) -> list[Bucket]:
    """Where each picture goes: one shape for all, or with --aspect_ratio_buckets that nearest."""
    resolution = side_of(pipe, config)
    if not config.aspect_ratio_buckets:
        return [Bucket((resolution, resolution), np.arange(len(images)))]
    multiple = pipe.vae_scale_factor * 2 ** (len(pipe.unet.config.block_out_channels) - 1)
    shapes = [bucket_shape(size, resolution, multiple) for size in images.sizes]
    return [
        Bucket(shape, np.array([i for i, own in enumerate(shapes) if own == shape]))
        for shape in sorted(set(shapes))
    ]


def side_of(pipe, config) -> int:
    """Pixels a side of pictures whose shape is not kept."""
    return config.resolution or pipe.unet.config.sample_size * pipe.vae_scale_factor


def _filled(shelf: Bucket, images, vae, config, run) -> Bucket:
    """The shelf with its latents: from --latents_dir where they are there, encoded where not."""
    shapes = _shapes_of(shelf, vae, config)
    if config.latents_dir is None:
        tensors = {name: torch.empty(shape, dtype=kind) for name, (kind, shape) in shapes.items()}
        for rows, mean, std in _encoded(range(len(shelf)), shelf, images, vae, shapes, run):
            tensors["mean"][rows], tensors["std"][rows] = mean, std
        return replace(shelf, mean=tensors["mean"], std=tensors["std"])
    digests = [images.digests[number] for number in shelf.numbers]
    kind = _key_of(vae, shelf, config, run)
    data = hashlib.sha256(b"".join(digests)).hexdigest()[:16]
    path = Path(config.latents_dir) / f"latents-{kind}-{data}.safetensors"

    def encode(file: CacheWriter | None) -> None:
        """What is missing in the file; processes other than the first have none."""
        missing = run.shared(file.missing if file else [])
        for rows, mean, std in _encoded(missing, shelf, images, vae, shapes, run):
            for each in zip(rows, mean, std, strict=True) if file else ():
                file.put(*each)

    if not run.any(run.is_main and opened(path, run) is not None):
        if run.is_main:
            with unfinished(path, shapes, digests, run) as file:
                if file:
                    adopt(file, kind, run)
                encode(file)
        else:
            encode(None)
        run.accelerator.wait_for_everyone()
    if not path.exists():
        raise UserError(f"--latents_dir {config.latents_dir} must be seen by all machines.")
    kept = CacheFile(path)
    return replace(shelf, mean=kept.mean, std=kept.std)


def _shapes_of(shelf: Bucket, vae, config) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    count, variants = len(shelf), 2 if config.random_flip else 1
    latents = (torch.float16, (count, variants, *latent_shape(vae, shelf.shape)))
    digests = (torch.uint8, (count, 32))
    return {"content": digests, "check": digests, "mean": latents, "std": latents}


def latent_shape(vae, shape: tuple[int, int]) -> tuple[int, int, int]:
    """C, h, w of the latents of a picture of `shape` H, W."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    return vae.config.latent_channels, shape[0] // factor, shape[1] // factor


@torch.no_grad()
def _encoded(
    places: Sequence[int], shelf: Bucket, images, vae, shapes, run
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Rows of `places`, their mean and std, while threads read the pictures to come.

    Processes take turns in encoding, and all get all.
    """
    kind, (_, *shape) = shapes["mean"]
    size, processes = pictures_at_once(shelf.shape), run.accelerator.num_processes
    parts = [list(places[first : first + size]) for first in range(0, len(places), size)]
    own = [place for part in parts[run.accelerator.process_index :: processes] for place in part]
    batches = images.batches(size, shelf.shape, [int(shelf.numbers[place]) for place in own])
    bar = tqdm(total=len(parts), desc="Encoding pictures", disable=not run.is_main, leave=False)
    for first in range(0, len(parts), processes):
        together = parts[first : first + processes]
        results = [torch.empty(2, len(rows), *shape, dtype=kind) for rows in together]
        if run.accelerator.process_index < len(together):
            pixels, result = next(batches).to(vae.device), results[run.accelerator.process_index]
            with run.accelerator.autocast():
                for variant in range(shape[0]):
                    mean, std = _encode(vae, pixels.flip(-1) if variant else pixels)
                    result[0, :, variant], result[1, :, variant] = mean.half(), std.half()
        for source, (rows, result) in enumerate(zip(together, results, strict=True)):
            run.send(result, source)
            yield rows, *result
            bar.update()


@torch.no_grad()
def _encode(vae, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 N,3,H,W in 0..255 -> mean and deviation, float32 N,C,h,w, scaled for the UNet."""
    posterior = vae.encode(pixels.float() / 127.5 - 1).latent_dist
    scale = vae.config.scaling_factor
    return posterior.mean.float() * scale, posterior.std.float() * scale


def pictures_at_once(shape: tuple[int, int]) -> int:
    """How many pictures of this height and width are encoded in one go."""
    return max(1, ENCODE_PIXELS // (shape[0] * shape[1]))


def _key_of(vae, shelf: Bucket, config, run) -> str:
    """Names the VAE and all that happens to a picture before it."""
    crop = "center" if config.center_crop else config.seed
    transform = (shelf.shape, crop, config.random_flip, config.image_interpolation_mode)
    key = hashlib.sha256(repr((transform, run.accelerator.mixed_precision)).encode())
    key.update(fingerprint_of(vae).encode())
    return key.hexdigest()[:16]


@torch.no_grad()
def _encode_captions(parts, pipe, run) -> tuple[torch.Tensor, list[list[list[int]]]]:
    """Every different caption once, the empty one first, and for each data set which ones
    describe each picture."""
    unique = {"": 0}
    choices = [
        [[unique.setdefault(text, len(unique)) for text in texts] for texts in captions]
        for captions in parts
    ]
    tokens = torch.tensor(
        pipe.tokenizer(
            list(unique),
            padding="max_length",
            max_length=run.config.tokenizer_max_length or pipe.tokenizer.model_max_length,
            truncation=True,
        ).input_ids
    )
    pipe.text_encoder.to(run.device)
    size = tokens.numel() * pipe.text_encoder.config.hidden_size * 4
    kept = size <= EMBEDDING_BYTES or run.config.pre_compute_text_embeddings
    if run.config.train_text_encoder or not kept:
        return tokens, choices
    embeddings = torch.empty(*tokens.shape, pipe.text_encoder.config.hidden_size)
    with run.accelerator.autocast():
        for part, place in zip(tokens.split(64), embeddings.split(64), strict=True):
            place.copy_(embeddings_of(pipe, part.to(run.device), run.config))
    pipe.text_encoder.to("cpu")
    return embeddings, choices
