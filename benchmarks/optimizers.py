"""Does Muon teach a small network more than AdamW in the same number of steps?

    python -m benchmarks.optimizers

trains the bundled VAE from nothing on the same crops, once with each optimizer at each of a few
peak learning rates, warm-up and cosine alike; the mean loss of the last steps counts. Results: a
table, and JSON beside it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean

import torch

from bundled import autoencoder
from bundled.base import drawn, mixed_drawing
from bundled.fit import schedule
from core.errors import exit_with_sentence
from core.precision import bf16_autocast
from training.muon import Muon

OPTIMIZERS = {
    "AdamW": (lambda weights, lr: torch.optim.AdamW(weights, lr=lr, weight_decay=0.0, fused=True)),
    "Muon": (lambda weights, lr: Muon(weights, lr=lr)),
}
RATES = {"AdamW": (1e-3, 2e-3, 4e-3), "Muon": (0.01, 0.02)}
LAST = 10  # steps whose loss counts
PICTURES = 512


def final_loss(optimizer: str, rate: float, pictures: torch.Tensor, steps: int) -> float:
    """Mean loss of the last steps of a run from nothing."""
    torch.manual_seed(0)
    vae, losses = autoencoder.build(), []
    weights = vae.named_parameters() if optimizer == "Muon" else vae.parameters()
    stepper = OPTIMIZERS[optimizer](weights, rate)
    for step in range(steps):
        for group in stepper.param_groups:
            group["lr"] = rate * schedule(step, steps)
        with bf16_autocast("cpu"):
            loss = autoencoder.reconstruction_loss(vae, autoencoder.crops(pictures, step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        stepper.step()
        stepper.zero_grad()
        losses.append(loss.item())
    return mean(losses[-LAST:])


def main() -> None:
    options = parse()
    images = [drawing.image for drawing in drawn(mixed_drawing, PICTURES)]
    pictures = torch.stack([
        torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        .view(image.height, image.width, 3).permute(2, 0, 1)
        for image in images
    ])  # fmt: skip
    results = []
    print(f"Loss after {options.steps} steps.\n")
    print("| optimizer | peak rate | loss |\n| --- | --- | --- |")
    for optimizer, rates in RATES.items():
        for rate in rates:
            loss = final_loss(optimizer, rate, pictures, options.steps)
            results.append({"optimizer": optimizer, "learning_rate": rate, "loss": loss})
            print(f"| {optimizer} | {rate:g} | {loss:.3f} |", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--output", type=Path, default=Path("outputs/optimizers.json"))
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_sentence(main)
