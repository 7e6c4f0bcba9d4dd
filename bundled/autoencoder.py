"""The bundled VAE: 128 x 128 pixels to 16 x 16 latents of 8 channels, 2.6 million parameters.

Eight channels, not four: at 128 px a latent pixel covers an eye, and four channels do not hold its
colour and its shape.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from bundled.fit import fit

LATENT_CHANNELS = 8
CROP = 64  # pixels a side; the network is convolutional, so that crops teach it whole pictures
BATCH = 384
KL_WEIGHT = 1e-4


def build() -> AutoencoderKL:
    """An untrained VAE. No attention in the middle: what it learns on crops holds for any size."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=LATENT_CHANNELS,
        mid_block_add_attention=False,
        sample_size=128,
        scaling_factor=1.0,  # the latents are normalised inside, see `normalise`
    )


def train(
    pictures: torch.Tensor,
    steps: int,
    folder: Path,
    device: str = "cpu",
    seconds: float = math.inf,
    start: AutoencoderKL | None = None,
) -> AutoencoderKL:
    """Train on random crops of `pictures`, uint8 N,3,128,128; resumes from `folder`.

    `start`: what it begins with, instead of nothing.
    """
    torch.manual_seed(0)
    vae = (start or build()).float().to(device)
    pictures = pictures.to(device)

    def loss_at(step: int) -> torch.Tensor:
        return reconstruction_loss(vae, crops(pictures, step))

    rate = 0.012 if start else 0.02
    fit(vae, loss_at, steps=steps, learning_rate=rate, folder=folder, seconds=seconds)
    normalise(vae, pictures[:512])
    return vae


def pixels(image: Image.Image) -> torch.Tensor:
    """uint8 3,H,W."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def crops(pictures: torch.Tensor, step: int) -> torch.Tensor:
    """The batch of a step: float BATCH,3,CROP,CROP in -1..1; half of them flipped."""
    rng = torch.Generator().manual_seed(step)
    rows = torch.randint(len(pictures), (BATCH,), generator=rng)
    tops, lefts = torch.randint(pictures.shape[-1] - CROP + 1, (2, BATCH, 1), generator=rng)
    along = torch.arange(CROP)
    places = torch.cat([rows.unsqueeze(1), tops + along, lefts + along], dim=1)
    rows, tops, lefts = places.to(pictures.device).split([1, CROP, CROP], dim=1)
    batch = pictures[rows.unsqueeze(2), :, tops.unsqueeze(2), lefts.unsqueeze(1)]
    batch = batch.permute(0, 3, 1, 2)
    batch = torch.cat([batch[: BATCH // 2].flip(-1), batch[BATCH // 2 :]])
    return batch.float() / 127.5 - 1


def reconstruction_loss(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """L1 and L2 of the pixels, L1 of their differences (edges, outlines), and a little KL."""
    posterior = vae.encode(images).latent_dist
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    return pixel_loss(vae.decode(posterior.sample()).sample, images) + KL_WEIGHT * kl


def pixel_loss(decoded: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """L1 and L2 of the pixels, L1 of their differences (edges, outlines)."""
    error = (decoded - images).float()
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 2 * error.square().mean() + edges


@torch.no_grad()
def normalise(vae: AutoencoderKL, pictures: torch.Tensor) -> None:
    """Give each latent channel mean 0 and deviation 1 by changing the two 1x1 convolutions.

    The decoder takes the inverse, so that pictures stay as they are. StableDiffusionPipeline knows
    one factor for all channels; folded in here, a plain pipeline works with factor 1.
    """
    device = next(vae.parameters()).device
    moments = [
        vae.encode(batch.to(device).float() / 127.5 - 1).latent_dist.sample()
        for batch in pictures.split(64)
    ]
    latents = torch.cat(moments).transpose(0, 1).flatten(1)  # 8, N*16*16
    mean, std = latents.mean(1), latents.std(1)
    to_latents, from_latents = vae.quant_conv, vae.post_quant_conv
    from_latents.bias += from_latents.weight[:, :, 0, 0] @ mean
    from_latents.weight *= std[None, :, None, None]
    to_latents.weight[:LATENT_CHANNELS] /= std[:, None, None, None]
    to_latents.bias[:LATENT_CHANNELS] = (to_latents.bias[:LATENT_CHANNELS] - mean) / std
    to_latents.bias[LATENT_CHANNELS:] -= 2 * std.log()  # the second half is the log of the variance
