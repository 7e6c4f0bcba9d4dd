"""Trains the bundled UNet on a stream of drawings, and its text encoder a little along with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from bundled.fit import fit
from bundled.stream import Pool, Stream, token_ids
from training.objective import TARGETS, add_noise

POOL = 600_000  # drawings at a time, 2.5 GB of latents
LEAST = 8_000  # drawings with which to begin
# Of the UNet's learning rate: the text encoder has learned beforehand what captions say, and learns
# to say it as the UNet hears it best. Faster, it would forget words that change few pixels.
TEXT_SHARE = 0.05
UNPROMPTED = 0.1  # share of empty captions, for classifier-free guidance (Ho and Salimans 2022)


def train(
    pipe: StableDiffusionPipeline,
    stream: Stream,
    folder: Path,
    *,
    steps: int,
    seconds: float,
    batch: int,
    learning_rate: float,
    compiled: bool = False,
) -> int:
    """Train UNet and text encoder of `pipe`, on their device, on the drawings of `stream`; resumes
    from `folder`. Return how many drawings were made for it.

    `steps`, `seconds`: see `fit`.
    """
    pipe.vae.requires_grad_(False)
    unet, device = pipe.unet, pipe.device.type
    predict = torch.compile(unet) if compiled else unet
    alpha_bar = pipe.scheduler.alphas_cumprod.to(device)
    target = TARGETS[pipe.scheduler.config.prediction_type]
    empty = token_ids(pipe.tokenizer, [""]).to(device)
    pool = Pool(stream, latents_of(pipe), POOL, device)

    def loss_at(step: int) -> torch.Tensor:
        x_0, ids = pool.batch(step, batch)
        x_0 = x_0.float()
        rng = torch.Generator(device).manual_seed(step)
        eps = torch.randn(x_0.shape, generator=rng, device=device)
        t = torch.randint(len(alpha_bar), (batch,), generator=rng, device=device)
        silent = torch.rand(batch, 1, generator=rng, device=device) < UNPROMPTED
        prompt = pipe.text_encoder(torch.where(silent, empty, ids))[0]
        level = alpha_bar[t].view(-1, 1, 1, 1)
        predicted = predict(add_noise(x_0, eps, level), t, prompt, return_dict=False)[0]
        return (predicted.float() - target(x_0, eps, level)).square().mean()

    pool.fill(LEAST)
    both = torch.nn.ModuleDict({"unet": unet, "text_encoder": pipe.text_encoder})
    fit(
        both, loss_at, steps=steps, learning_rate=learning_rate, folder=folder, seconds=seconds,
        shares={"text_encoder.": TEXT_SHARE},
    )  # fmt: skip
    return pool.seen


def latents_of(pipe: StableDiffusionPipeline) -> Callable[[torch.Tensor], torch.Tensor]:
    @torch.no_grad()
    def encode(pictures: torch.Tensor) -> torch.Tensor:
        """uint8 N,3,H,W -> latents, float16 N,C,h,w: the posterior's mean, because its deviation
        is large where a VAE is unsure, and noise in the target teaches nothing."""
        posterior = pipe.vae.encode(pictures.float() / 127.5 - 1).latent_dist
        return (posterior.mean * pipe.vae.config.scaling_factor).half()

    return encode
