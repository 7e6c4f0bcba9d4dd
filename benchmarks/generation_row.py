"""A row of benchmarks/generation.py in a process of its own: draws its picture, and prints how long
it took and how much memory; or prints what this processor can do."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

PROMPT, SEED, GUIDANCE = "a drawing of a red creature with blue wings", 7, 7.5
PICTURES = 3  # of a round, beside the first, which does not count
Draw = Callable[[Callable[[], None]], Any]  # draws a picture, and calls what it is given each step


class Enough(Exception):
    """All steps that are timed are done."""


def by_diffusers(model: str, steps: int) -> tuple[Draw, Callable]:
    """What draws a picture as users of diffusers do, and what decodes its last latents."""
    import torch
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    latents = []

    def draw(done: Callable[[], None]):
        def on_step(_, step, timestep, tensors):
            latents[:] = [tensors["latents"]]
            done()
            return tensors

        return pipe(
            PROMPT, num_inference_steps=steps, guidance_scale=GUIDANCE,
            generator=torch.Generator("cpu").manual_seed(SEED), callback_on_step_end=on_step,
        ).images[0]  # fmt: skip

    @torch.no_grad()
    def decode():
        pipe.vae.decode(latents[0] / pipe.vae.config.scaling_factor)

    return draw, decode


def by_us(
    model: str, steps: int, backend: str, scheduler: str, fast: bool = False
) -> tuple[Draw, Callable]:
    """Likewise, by this project."""
    from sampling.few_steps import fast_lora_of
    from sampling.generator import Generator
    from sampling.image import Picture
    from sampling.request import Request

    load = partial(Generator.load_fast, fast_lora_of(model)) if fast else Generator.load
    generator = load(model, device="cpu", dtype="fp32", backend=backend)
    settings = {"steps": steps, "guidance_scale": GUIDANCE, "scheduler": scheduler}
    settings |= generator.draws
    assert generator.settings["backend"] == backend, "it was not compiled"
    drawings = []

    def draw(done: Callable[[], None]):
        for event in generator.denoising_events([Request(PROMPT, seed=SEED, **settings)]):
            if isinstance(event, Picture):
                return event.image
            drawings[:] = [event]
            generator.step([event])
            done()

    return draw, lambda: generator.denoiser.finish(drawings[0])


def measure(draw: Draw, decode: Callable, calls: int, timed_steps: int, picture: str) -> dict:
    """`calls`: of the UNet for a picture. `timed_steps`: 0 draws pictures, the first to the file
    `picture`; else one is reckoned from so many steps after a first one, and from its decoding."""
    ends: list[float] = []

    def done() -> None:
        ends.append(time.perf_counter())
        if timed_steps and len(ends) > timed_steps:
            raise Enough

    if not timed_steps:
        draw(done).save(picture)
    seconds, steps = [], []
    for _ in range(1 if timed_steps else PICTURES):
        ends.clear()
        started = time.perf_counter()
        try:
            draw(done)
            seconds.append(time.perf_counter() - started)
        except Enough:
            decoded = best_of(1, decode)
            rest = median(b - a for a, b in pairwise(ends)) * (calls - 1)
            seconds.append(ends[0] - started + rest + decoded)
        steps += [b - a for a, b in pairwise(ends)]
    return {"seconds": seconds, "step_seconds": median(steps), "memory_bytes": peak_bytes()}


def peak_bytes() -> int:
    """The most memory that this process has had in use."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) * 1024


def can_do() -> dict:
    """Floating-point operations a second of a matrix product, and of a convolution of the UNet."""
    import torch

    side, channels, pixels = 2048, 320, 64
    matrix = torch.randn(side, side)
    conv = torch.nn.Conv2d(channels, channels, 3, padding=1)
    image = torch.randn(2, channels, pixels, pixels)
    work = {
        "matrix_product": (lambda: matrix @ matrix, 2 * side**3),
        "convolution": (lambda: conv(image), 2 * 2 * 9 * channels**2 * pixels**2),
    }
    with torch.no_grad():
        return {name: flops / best_of(10, act) for name, (act, flops) in work.items()}


def best_of(times: int, act: Callable[[], object]) -> float:
    def once() -> float:
        started = time.perf_counter()
        act()
        return time.perf_counter() - started

    return min(once() for _ in range(times))


def step_flops(model: str, rows: int = 2) -> int:
    """Floating-point operations of a call of the UNet, counted without its weights."""
    import torch
    from diffusers import UNet2DConditionModel
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(f"{model}/unet"))
        sample = torch.randn(rows, unet.config.in_channels, *[unet.config.sample_size] * 2)
        words = torch.randn(rows, 77, unet.config.cross_attention_dim)
        # The counter knows attention only by the products that it is made of.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            unet(sample, torch.zeros(rows), words)
    return counter.get_total_flops()


def main(asked: dict) -> dict:
    """`asked`: the fields of a Row, "model", "timed_steps" and "picture"; or "model" alone."""
    model = asked["model"]
    if "steps" not in asked:
        return can_do() | {"step_flops": step_flops(model)}
    if asked["backend"]:
        acts = by_us(*(asked[name] for name in ("model", "steps", "backend", "scheduler", "fast")))
    else:
        acts = by_diffusers(model, asked["steps"])
    return measure(*acts, asked["calls"], asked["timed_steps"], asked["picture"])


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
