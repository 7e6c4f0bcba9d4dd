"""Decoding: a few pictures at a time, and in tiles where memory does not suffice."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from bundled import creatures
from sampling import denoiser
from sampling.generator import DEFAULT_MODEL, Generator
from sampling.networks import TILE, TorchNetworks, in_tiles
from sampling.request import Request


@pytest.fixture
def generator(tiny_model) -> Generator:
    return Generator.load(tiny_model, device="cpu", dtype="fp32")


def test_large_pictures_are_decoded_one_by_one_and_small_ones_together(generator, monkeypatch):
    decode, calls = generator.pipe.vae.decode, []

    def noting(latents, **options):
        calls.append(len(latents))
        return decode(latents, **options)

    monkeypatch.setattr(generator.pipe.vae, "decode", noting)
    few = Request("a", steps=1, num_images=3, width=64, height=64)
    together = [np.asarray(p.image).astype(int) for p in generator.pictures([few])]
    monkeypatch.setattr(denoiser, "PIXELS_AT_ONCE", 64 * 64)
    alone = [np.asarray(p.image).astype(int) for p in generator.pictures([few])]
    assert calls == [3, 1, 1, 1]
    assert max(abs(a - b).max() for a, b in zip(together, alone, strict=True)) <= 1


@torch.no_grad()
def test_tiles_are_nearly_the_whole_picture():
    vae = AutoencoderKL.from_pretrained(DEFAULT_MODEL, subfolder="vae").eval()
    picture = creatures.draw("pokemon", seed=1).image.resize((384, 384))
    pixels = np.asarray(picture, np.float32) / 127.5 - 1
    encoded = vae.encode(torch.from_numpy(pixels).movedim(2, 0)[None]).latent_dist.mode()
    whole, tiled = vae.decode(encoded).sample, in_tiles(vae, encoded)
    assert tiled.shape == whole.shape == (1, 3, 384, 384)
    assert 0 < (tiled - whole).abs().mean() < 0.05  # of 2


@torch.no_grad()
def test_a_picture_that_does_not_fit_into_memory_is_decoded_in_tiles(generator, monkeypatch):
    decoder, sides = generator.pipe.vae.decoder.forward, []

    def small(sample, *inputs, **options):
        if max(sample.shape[2:]) > TILE:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sides.append(tuple(sample.shape[2:]))
        return decoder(sample, *inputs, **options)

    monkeypatch.setattr(generator.pipe.vae.decoder, "forward", small)
    decoded = TorchNetworks(generator.pipe).decode(torch.randn(1, 4, 40, 24))
    assert decoded.isfinite().all() and sides == [(32, 24), (16, 24)]
    assert decoded.shape[2:] == (40 * generator.pipe.vae_scale_factor,
                                 24 * generator.pipe.vae_scale_factor)  # fmt: skip


def test_another_error_of_the_decoder_is_not_taken_for_a_lack_of_memory(generator, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(generator.pipe.vae, "decode", fails)
    with pytest.raises(RuntimeError, match="no such operator"):
        list(generator.pictures([Request("a", steps=1)]))
