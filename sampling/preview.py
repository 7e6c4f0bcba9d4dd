"""Previews while a picture is drawn: a linear map from latents to RGB, without the VAE."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from core.bounded_json import read
from core.files import replaced

if TYPE_CHECKING:
    import torch

PATCHES, SIDE = 16, 128  # images that the map is fitted to, and their pixels a side
SHOWN = 256  # pixels of a preview's longer side
FILE = "latent_rgb.json"  # in a model folder


class Preview:
    """A linear map from latents to RGB, fitted to one VAE: blurred shapes in the right colours."""

    def __init__(self, weights: torch.Tensor):
        """`weights`: float32 C+1,3; the last row is the bias."""
        self.weights = weights

    @classmethod
    def fitted(cls, vae) -> Preview:
        """Fit the map by least squares to smooth random images and their latents."""
        import torch

        random = torch.Generator().manual_seed(0)
        coarse = torch.rand(PATCHES, 3, 5, 5, generator=random)
        pixels = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")
        with torch.no_grad():
            encoded = vae.encode((pixels * 2 - 1).to(vae.device, vae.dtype)).latent_dist.mode()
        latents = encoded.float().cpu() * vae.config.scaling_factor
        colours = torch.nn.functional.adaptive_avg_pool2d(pixels, latents.shape[-2:])
        rows = _with_one(latents.movedim(1, -1).flatten(0, -2))  # N*h*w,C+1
        return cls(torch.linalg.lstsq(rows, colours.movedim(1, -1).flatten(0, -2)).solution)

    @classmethod
    def read(cls, folder: str | Path, channels: int) -> Preview | None:
        """The map that `save` wrote into a model folder; None where there is none, or none that
        fits a VAE of so many latent channels."""
        import torch

        try:
            rows = read(Path(folder) / FILE)
            weights = torch.tensor(rows, dtype=torch.float32)
        except (OSError, ValueError, TypeError, RuntimeError):  # of JSON that is no matrix
            return None
        fits = weights.shape == (channels + 1, 3) and weights.isfinite().all()
        return cls(weights) if fits else None

    def save(self, folder: str | Path) -> None:
        """Write the map into a model folder, so that it need not be fitted again."""
        rows = ",\n".join(json.dumps(row) for row in self.weights.tolist())
        with replaced(Path(folder) / FILE) as staged:
            staged.write_text(f"[{rows}]\n", encoding="utf-8")

    def images(self, latents: torch.Tensor) -> list[Image.Image]:
        """Latents N,C,h,w, scaled as for the UNet -> N small RGB images."""
        colours = _with_one(latents.detach().float().cpu().movedim(1, -1)) @ self.weights
        pixels = (colours.clamp(0, 1) * 255).round().byte().numpy()  # N,h,w,3
        scale = SHOWN / max(pixels.shape[1:3])
        size = round(pixels.shape[2] * scale), round(pixels.shape[1] * scale)
        return [Image.fromarray(each).resize(size, Image.Resampling.BICUBIC) for each in pixels]


def _with_one(rows: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.cat([rows, torch.ones_like(rows[..., :1])], dim=-1)
