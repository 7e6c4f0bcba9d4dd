"""One small training loop for the parts of the bundled models that are not a UNet."""

from __future__ import annotations

import glob
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch

from core.errors import Stopped
from core.files import remove_leftovers
from core.precision import bf16_autocast
from core.signals import DeferredSignals
from core.terminal import say
from training import checkpoint_files
from training.muon import Muon
from training.optimizer_step import moments, start

WARMUP_STEPS = 50
SAVE_EVERY_STEPS = 100


def fit(
    model: torch.nn.Module,
    loss_at: Callable[[int], torch.Tensor],
    *,
    steps: int,
    learning_rate: float,
    folder: Path,
) -> None:
    """Train `model` in place with Muon, a short warm-up and a cosine decay to zero.

    `loss_at(step)` returns the loss of a step, a scalar tensor; it is called under bf16
    autocast where the device is faster in it.
    The state is kept in `folder`: the same call again goes on where it stopped, and does nothing
    when all steps are done.
    """
    weights = dict(model.named_parameters())
    optimizer = Muon(weights.items(), lr=learning_rate)
    start(optimizer)
    files = {
        "weights.safetensors": weights | _buffers(model),
        "optimizer.safetensors": moments(optimizer, list(weights)),
    }
    remove_leftovers(folder.parent, glob.escape(folder.name))
    done = 0
    if folder.is_dir():
        checkpoint_files.load(folder, files)
        done = checkpoint_files.state_of(folder)["step"]
    device = next(model.parameters()).device.type
    started, first = time.monotonic(), done
    model.train()
    with DeferredSignals() as asked:
        for step in range(done, steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * schedule(step, steps)
            with bf16_autocast(device):
                loss = loss_at(step)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if asked.asked() or (step + 1) % SAVE_EVERY_STEPS == 0 or step + 1 == steps:
                rate = (step + 1 - first) / (time.monotonic() - started)
                _save(folder, files, step + 1, steps, loss.item(), rate)
            if asked.asked():
                raise Stopped(
                    f"Stopped after step {step + 1} of {folder.name}; the same command goes on."
                )
    model.eval()


def _save(folder: Path, files, step: int, steps: int, loss: float, rate: float) -> None:
    if not math.isfinite(loss):
        raise RuntimeError(f"The loss is {loss} at step {step} of {folder.name}.")
    checkpoint_files.save(folder, files, {"step": step})
    say(f"{folder.name}: step {step}/{steps}, loss {loss:.4f}, {rate:.2f} steps/s")


def schedule(step: int, steps: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then half a cosine to zero."""
    return min((step + 1) / WARMUP_STEPS, 0.5 * (1 + math.cos(math.pi * step / steps)))


def _buffers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Running statistics of batch norms: state that no optimizer sees."""
    return {name: value for name, value in model.named_buffers() if value.is_floating_point()}
