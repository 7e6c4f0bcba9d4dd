"""A row of benchmarks/generation.py in a process of its own: draws its picture, and prints how long
it took and how much memory; or prints what this processor can do."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

PROMPT, SEED, GUIDANCE = "a drawing of a red creature with blue wings", 7, 7.5
PICTURES = 3  # of a round, beside the first, which does not count
Kind = Hashable  # steps of one kind take equally long
# Draws a picture of so many steps, and tells the kind of each.
Draw = Callable[[int, Callable[[Kind], None]], Any]


def by_diffusers(model: str, device: str) -> Draw:
    """What draws a picture as users of diffusers do."""
    import torch
    from diffusers import StableDiffusionPipeline

    dtype = torch.float32 if device == "cpu" else torch.float16
    pipe = StableDiffusionPipeline.from_pretrained(model, dtype=dtype).to(device)
    pipe.set_progress_bar_config(disable=True)

    def draw(steps: int, done: Callable[[Kind], None]):
        def on_step(_, step, timestep, tensors):
            done(None)
            return tensors

        return pipe(
            PROMPT, num_inference_steps=steps, guidance_scale=GUIDANCE,
            generator=torch.Generator("cpu").manual_seed(SEED), callback_on_step_end=on_step,
        ).images[0]  # fmt: skip

    return draw


def by_us(model: str, settings: dict, backend: str, device: str, fast: bool) -> Draw:
    """Likewise, by this project. `settings`: of a Request."""
    from sampling.image import Picture
    from sampling.request import Request

    generator = generator_of(model, backend, device, fast)

    def draw(steps: int, done: Callable[[Kind], None]):
        request = Request(PROMPT, seed=SEED, **settings | {"steps": steps})
        for event in generator.denoising_events([request]):
            if isinstance(event, Picture):
                return event.image
            kind = event.rows, event.reused_deep is not None
            generator.step([event])
            done(kind)

    return draw


def generator_of(model: str, backend: str, device: str, fast: bool = False):
    """`fast`: with the model's LoRA for few steps, if it has one: random weights have none, and
    take as long without."""
    from sampling.few_steps import fast_lora_of
    from sampling.generator import Generator

    lora = fast_lora_of(model) if fast else None
    load = partial(Generator.load_fast, lora) if lora else Generator.load
    generator = load(model, device=device, dtype=dtype_of(device), backend=backend)
    assert generator.settings["backend"] == backend, "it was not compiled"
    return generator


def dtype_of(device: str) -> str:
    return "fp32" if device == "cpu" else "fp16"


def kinds_of(settings: dict) -> Counter[Kind]:
    """How many steps of each kind a picture of ours takes."""
    from sampling.request import Request

    request = Request(PROMPT, **settings)
    return Counter(
        (1 + (step < request.guided_steps), step % request.cache_interval > 0)
        for step in range(request.steps)
    )


def measure(
    draw: Draw, steps: int, kinds: Counter[Kind], picture: str, device: str = "cpu"
) -> dict:
    """`kinds`: the steps of the picture. `picture`: the file to draw it to; "": one of `steps`,
    which are fewer, is drawn, and the whole one is reckoned from it."""
    synchronize = synchronizer(device)
    ends: list[tuple[Kind, float]] = []

    def done(kind: Kind) -> None:
        synchronize()
        ends.append((kind, time.perf_counter()))

    first = draw(steps if picture else 1, done)  # it does not count
    if picture:
        first.save(picture)
    seconds, taken = [], defaultdict(list)
    for _ in range(PICTURES if picture else 1):
        ends.clear()
        begun = time.perf_counter()
        draw(steps, done)
        synchronize()
        seconds.append(time.perf_counter() - begun)
        # Of the first step nobody knows when it began.
        for (_, before), (kind, end) in pairwise(ends):
            taken[kind].append(end - before)
    of_kind = {kind: median(each) for kind, each in taken.items()}
    if not picture:
        rest = kinds - Counter(kind for kind, _ in ends)
        seconds = [seconds[0] + sum(of_kind[kind] * count for kind, count in rest.items())]
    return {
        "seconds": seconds,
        "step_seconds": fmean(of_kind[kind] for kind in kinds.elements()),
        "memory_bytes": peak_bytes(device),
    }


def synchronizer(device: str) -> Callable[[], None]:
    if device == "cpu":
        return lambda: None
    import torch

    return partial(torch.cuda.synchronize, device)


def side_by_side(model: str, users: int, steps: int, device: str) -> dict:
    """Seconds for the pictures of so many users, whose drawings take their steps together."""
    from sampling.image import Picture
    from sampling.request import Request

    generator, synchronize = generator_of(model, "torch", device), synchronizer(device)
    requests = [Request(PROMPT, seed=SEED + user, steps=steps) for user in range(users)]
    seconds = []
    for _ in range(1 + PICTURES):
        begun = time.perf_counter()
        under_way = [generator.denoising_events([request]) for request in requests]
        while drawings := [
            event for events in under_way if not isinstance(event := next(events), Picture)
        ]:
            generator.step(drawings)
        synchronize()
        seconds.append(time.perf_counter() - begun)
    return {"users": users, "seconds": median(seconds[1:]), "memory_bytes": peak_bytes(device)}


def peak_bytes(device: str = "cpu") -> int:
    """The most memory that this process has had in use, on its device."""
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) * 1024


def can_do(device: str = "cpu") -> dict:
    """Floating-point operations a second of a matrix product, and of a convolution of the UNet."""
    import torch

    side, channels, pixels = 2048 if device == "cpu" else 8192, 320, 64
    about = {"device": device, "dtype": torch.float32 if device == "cpu" else torch.float16}
    matrix = torch.randn(side, side).to(**about)
    conv = torch.nn.Conv2d(channels, channels, 3, padding=1).to(**about)
    image = torch.randn(2, channels, pixels, pixels).to(**about)
    synchronize = synchronizer(device)
    work = {
        "matrix_product": (lambda: matrix @ matrix, 2 * side**3),
        "convolution": (lambda: conv(image), 2 * 2 * 9 * channels**2 * pixels**2),
    }
    with torch.no_grad():
        return {name: flops / best_of(10, act, synchronize) for name, (act, flops) in work.items()}


def best_of(times: int, act: Callable[[], object], synchronize: Callable[[], None]) -> float:
    def once() -> float:
        synchronize()
        started = time.perf_counter()
        act()
        synchronize()
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
    """`asked`: a Row's "backend", "settings" and "fast", "model", "device", "timed_steps" and
    "picture"; or "users", or neither of them."""
    model, device = asked["model"], asked["device"]
    if "users" in asked:
        return side_by_side(model, asked["users"], asked["steps"], device)
    if "settings" not in asked:
        return can_do(device) | {"step_flops": step_flops(model)}
    settings, timed = asked["settings"], asked["timed_steps"]
    steps = min(timed, settings["steps"]) or settings["steps"]
    if asked["backend"]:
        draw = by_us(model, settings, asked["backend"], device, asked["fast"])
        kinds = kinds_of(settings)
    else:
        draw, kinds = by_diffusers(model, device), Counter({None: asked["calls"]})
    return measure(draw, steps, kinds, "" if timed else asked["picture"], device)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
