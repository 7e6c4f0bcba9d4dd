"""Encode images and captions once, keep, reuse."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from training.checkpoint import replaced
from training.dataset import order, random_at

ENCODE_BATCH = 16
EMBEDDING_BYTES = 4 * 2**30  # beyond this, captions are encoded anew at every step


@dataclass(frozen=True)
class Latents:
    """The data set as the UNet sees it, in memory.

    Pictures are kept as mean and standard deviation, so that each epoch draws fresh noise.
    """

    mean: torch.Tensor  # float16 N,V,C,h,w, scaled for the UNet; V is 2 when mirrored are kept too
    std: torch.Tensor  # float16 N,V,C,h,w
    prompts: torch.Tensor  # P,T token ids or float P,T,D embeddings; the empty caption is first
    choices: list[list[int]]  # for each picture, the rows of `prompts` that describe it
    fingerprint: str

    def __len__(self) -> int:
        return len(self.mean)

    def batch(self, config, step: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What the whole of step `step` learns from: x_0 float32 B,C,h,w and prompts B,T[,D].

        A function of (seed, step, position in the batch), whatever was drawn before.
        """
        pictures = order(config.seed, len(self), step * size, size)
        random = random_at(config.seed, "batch", step)
        mirrored = torch.from_numpy(random.integers(self.mean.shape[1], size=size))
        which, dropped = random.random(size), random.random(size) < config.empty_captions
        noise = random.standard_normal((size, *self.mean.shape[2:]), dtype=np.float32)

        mean, std = (kept[pictures, mirrored].float() for kept in (self.mean, self.std))
        prompts = [
            0 if drop else self.choices[picture][int(draw * len(self.choices[picture]))]
            for picture, draw, drop in zip(pictures, which, dropped, strict=True)
        ]
        return mean + std * torch.from_numpy(noise), self.prompts[prompts]


def encode_once(images, pipe, run) -> Latents:
    """Encode every picture and caption; then the encoders that do not learn leave the device."""
    resolution = run.config.resolution or pipe.unet.config.sample_size * pipe.vae_scale_factor
    kept = _kept_file(images, pipe.vae, resolution, run.config)
    tensors = _load_kept(kept, run) if kept and kept.exists() else None
    if tensors is None:
        tensors = _encode_images(images, pipe.vae, resolution, run)
        if kept and run.is_main:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replaced(kept) as path:
                save_file(tensors, path)
    prompts, choices = _encode_captions(images.captions, pipe, run)
    return Latents(**tensors, prompts=prompts, choices=choices, fingerprint=images.fingerprint)


@torch.no_grad()
def _encode_images(images, vae, resolution: int, run) -> dict[str, torch.Tensor]:
    vae.to(run.device)
    means, stds = [], []
    batches = images.batches(ENCODE_BATCH, resolution)
    total = -(-len(images) // ENCODE_BATCH)
    for pixels in tqdm(batches, "Encoding pictures", total, disable=not run.is_main, leave=False):
        # uint8 N,3,R,R in 0..255 -> float N,3,R,R in -1..1 -> float N,C,R/8,R/8
        pixels = pixels.to(run.device).float() / 127.5 - 1
        mean, std = [], []
        for variant in (pixels, pixels.flip(-1)) if run.config.random_flip else (pixels,):
            posterior = vae.encode(variant).latent_dist
            mean.append(posterior.mean), std.append(posterior.std)
        means.append((torch.stack(mean, 1) * vae.config.scaling_factor).half().cpu())
        stds.append((torch.stack(std, 1) * vae.config.scaling_factor).half().cpu())
    vae.to("cpu")
    return {"mean": torch.cat(means), "std": torch.cat(stds)}


def _kept_file(images, vae, resolution: int, config) -> Path | None:
    """The cache file of these pictures, cropped this way, under this VAE; None without a cache."""
    if config.latents_dir is None:
        return None
    crop = "center" if config.center_crop else config.seed
    key = hashlib.sha256(repr((images.fingerprint, resolution, crop, config.random_flip)).encode())
    for name, weight in sorted(vae.state_dict().items()):
        key.update(name.encode() + weight.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return Path(config.latents_dir) / f"latents-{key.hexdigest()[:16]}.safetensors"


def _load_kept(path: Path, run) -> dict[str, torch.Tensor] | None:
    """What a cache file holds; None, with a word to the user, where it is damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        run.say(f"{path} is damaged ({error}): the pictures are encoded anew.")
        return None


@torch.no_grad()
def _encode_captions(captions, pipe, run) -> tuple[torch.Tensor, list[list[int]]]:
    """Every different caption once, the empty one first, and which ones describe each picture."""
    unique = {"": 0}
    choices = [[unique.setdefault(text, len(unique)) for text in texts] for texts in captions]
    tokens = torch.tensor(
        pipe.tokenizer(
            list(unique),
            padding="max_length",
            max_length=pipe.tokenizer.model_max_length,
            truncation=True,
        ).input_ids
    )
    pipe.text_encoder.to(run.device)
    size = tokens.numel() * pipe.text_encoder.config.hidden_size * 4
    if run.config.train_text_encoder or size > EMBEDDING_BYTES:
        return tokens, choices
    embeddings = torch.empty(*tokens.shape, pipe.text_encoder.config.hidden_size)
    with run.accelerator.autocast():
        for part, place in zip(tokens.split(64), embeddings.split(64), strict=True):
            place.copy_(pipe.text_encoder(part.to(run.device))[0])
    pipe.text_encoder.to("cpu")
    return embeddings, choices
