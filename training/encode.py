"""Encoding of images and captions, once before training; latents come from and go to
--latents_dir."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from core.errors import UserError
from training.checkpoint_files import fingerprint_of
from training.config import Config
from training.dataset import bucket_shape
from training.latent_cache import CacheFile, CacheWriter, adopt, opened, unfinished
from training.latents import Bucket, Latents, latent_shape, pictures_at_once, posterior_of
from training.model import embeddings_of

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, StableDiffusionPipeline

    from training.dataset import CaptionedImages
    from training.run import Run

EMBEDDING_BYTES = 4 * 2**30  # beyond this, captions are encoded in every step


def encode_once(images: CaptionedImages, pipe: StableDiffusionPipeline, run: Run) -> Latents:
    """Encode all pictures and captions; then the encoders that are not trained leave the device.

    With --no_cache, only captions and the held-out pictures, which are part of the result.
    """
    config = images.config
    parts = [images, *([images.held_out] if images.held_out else [])]
    prompts, choices = _encode_captions([part.captions for part in parts], pipe, run)
    pipe.vae.to(run.device)
    latents = []
    for part, several in zip(parts, choices, strict=True):
        measured = part is not images
        options = replace(config, random_flip=False, no_cache=False) if measured else config
        buckets = _buckets(part, pipe, options)
        if not options.no_cache:
            buckets = [_filled(bucket, part, pipe.vae, options, run) for bucket in buckets]
        latents.append(Latents(part, buckets, prompts, several, pipe.vae, options))
    if not config.no_cache:
        pipe.vae.to("cpu")
    latents[0].held_out = latents[1] if latents[1:] else None
    return latents[0]


def _buckets(
    images: CaptionedImages, pipe: StableDiffusionPipeline, config: Config
) -> list[Bucket]:
    """The buckets: one shape for all pictures, or with --aspect_ratio_buckets the nearest to
    each."""
    resolution = side_of(pipe, config)
    if not config.aspect_ratio_buckets:
        return [Bucket((resolution, resolution), np.arange(len(images)))]
    multiple = pipe.vae_scale_factor * 2 ** (len(pipe.unet.config.block_out_channels) - 1)
    shapes = [bucket_shape(size, resolution, multiple) for size in images.sizes]
    return [
        Bucket(shape, np.array([i for i, own in enumerate(shapes) if own == shape]))
        for shape in sorted(set(shapes))
    ]


def side_of(pipe: StableDiffusionPipeline, config: Config) -> int:
    """Pixels per side of pictures, without buckets."""
    return config.resolution or pipe.unet.config.sample_size * pipe.vae_scale_factor


def _filled(
    bucket: Bucket, images: CaptionedImages, vae: AutoencoderKL, config: Config, run: Run
) -> Bucket:
    """The bucket with its latents, from --latents_dir or encoded."""
    shapes = _shapes_of(bucket, vae, config)
    if config.latents_dir is None:
        tensors = {name: torch.empty(shape, dtype=kind) for name, (kind, shape) in shapes.items()}
        for rows, mean, std in _encoded(range(len(bucket)), bucket, images, vae, shapes, run):
            tensors["mean"][rows], tensors["std"][rows] = mean, std
        return replace(bucket, mean=tensors["mean"], std=tensors["std"])
    digests = [images.digests[number] for number in bucket.numbers]
    kind = _key_of(vae, bucket, config, run)
    data = hashlib.sha256(b"".join(digests)).hexdigest()[:16]
    path = Path(config.latents_dir) / f"latents-{kind}-{data}.safetensors"

    def encode(file: CacheWriter | None) -> None:
        """Encode the rows that the file lacks; processes other than the first have no file."""
        missing = run.shared(file.missing if file else [])
        for rows, mean, std in _encoded(missing, bucket, images, vae, shapes, run):
            if file:
                for each in zip(rows, mean, std, strict=True):
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
    cached = CacheFile(path)
    return replace(bucket, mean=cached.mean, std=cached.std)


def _shapes_of(
    bucket: Bucket, vae: AutoencoderKL, config: Config
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    count, variants = len(bucket), 2 if config.random_flip else 1
    latents = (torch.float16, (count, variants, *latent_shape(vae, bucket.shape)))
    digests = (torch.uint8, (count, 32))
    return {"content": digests, "check": digests, "mean": latents, "std": latents}


@torch.no_grad()
def _encoded(
    places: Sequence[int],
    bucket: Bucket,
    images: CaptionedImages,
    vae: AutoencoderKL,
    shapes,
    run: Run,
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Encode `places`: rows, their mean and std, while threads read the next pictures.

    Processes take turns in encoding, and each gets all results.
    """
    kind, (_, *shape) = shapes["mean"]
    size, processes = pictures_at_once(bucket.shape), run.accelerator.num_processes
    parts = [list(places[first : first + size]) for first in range(0, len(places), size)]
    own = [place for part in parts[run.accelerator.process_index :: processes] for place in part]
    batches = images.batches(size, bucket.shape, [int(bucket.numbers[place]) for place in own])
    bar = tqdm(total=len(parts), desc="Encoding pictures", disable=not run.is_main, leave=False)
    for first in range(0, len(parts), processes):
        together = parts[first : first + processes]
        results = [torch.empty(2, len(rows), *shape, dtype=kind) for rows in together]
        if run.accelerator.process_index < len(together):
            pixels, result = next(batches).to(vae.device), results[run.accelerator.process_index]
            with run.accelerator.autocast():
                for variant in range(shape[0]):
                    mean, std = posterior_of(vae, pixels.flip(-1) if variant else pixels)
                    result[0, :, variant], result[1, :, variant] = mean.half(), std.half()
        for source, (rows, result) in enumerate(zip(together, results, strict=True)):
            run.send(result, source)
            yield rows, *result
            bar.update()


def _key_of(vae: AutoencoderKL, bucket: Bucket, config: Config, run: Run) -> str:
    """The cache key: of the VAE and of the transform of the pictures."""
    crop = "center" if config.center_crop else config.seed
    transform = (bucket.shape, crop, config.random_flip, config.image_interpolation_mode)
    key = hashlib.sha256(repr((transform, run.accelerator.mixed_precision)).encode())
    key.update(fingerprint_of(vae).encode())
    return key.hexdigest()[:16]


@torch.no_grad()
def _encode_captions(
    parts, pipe: StableDiffusionPipeline, run: Run
) -> tuple[torch.Tensor, list[list[list[int]]]]:
    """Each distinct caption once, the empty one first; and for each data set the captions of its
    pictures, as rows."""
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
    precomputed = size <= EMBEDDING_BYTES or run.config.pre_compute_text_embeddings
    if run.config.train_text_encoder or not precomputed:
        return tokens, choices
    embeddings = torch.empty(*tokens.shape, pipe.text_encoder.config.hidden_size)
    with run.accelerator.autocast():
        for part, place in zip(tokens.split(64), embeddings.split(64), strict=True):
            place.copy_(embeddings_of(pipe, part.to(run.device), run.config))
    pipe.text_encoder.to("cpu")
    return embeddings, choices
