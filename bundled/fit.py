"""One small training loop for all parts of the bundled models."""

from __future__ import annotations

import glob
import math
import time
from collections.abc import Callable, Mapping
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
SAVE_EVERY_SECONDS = 60


def fit(
    model: torch.nn.Module,
    loss_at: Callable[[int], torch.Tensor],
    *,
    steps: int,
    learning_rate: float,
    folder: Path,
    seconds: float = math.inf,
    shares: Mapping[str, float] | None = None,
) -> None:
    """Train `model` in place with Muon, a short warm-up and a cosine decay to zero.

    `loss_at(step)` returns the loss of a step, a scalar tensor; it is called under bf16
    autocast where the device is faster in it. It ends after `steps`, or after `seconds` of
    training if that is sooner; the decay ends with it. `shares`: of the learning rate, for the
    weights whose names begin so; for all others 1.
    The state is kept in `folder`: the same call again goes on where it stopped, and does nothing
    when all is done.
    """
    weights = dict(model.named_parameters())
    optimizer = Muon(_groups(weights, shares or {}), lr=learning_rate)
    start(optimizer)
    files = {
        "weights.safetensors": weights | _buffers(model),
        "optimizer.safetensors": moments(optimizer, list(weights)),
    }
    done, before = _reached(folder, files)
    started = saved = time.monotonic()
    model.train()
    with DeferredSignals() as asked:
        while (share := max(done / steps, before / seconds)) < 1:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * group["share"] * schedule(done, share)
            loss = _step(model, optimizer, lambda at=done: loss_at(at))
            done, now = done + 1, time.monotonic()
            before, started = before + now - started, now
            last = max(done / steps, before / seconds) >= 1
            if asked.asked() or last or now - saved >= SAVE_EVERY_SECONDS:
                saved = now
                _save(folder, files, {"step": done, "seconds": before}, loss.item())
            if asked.asked():
                raise Stopped(
                    f"Stopped after step {done} of {folder.name}; the same command goes on."
                )
    model.eval()


def _groups(weights: Mapping[str, torch.nn.Parameter], shares: Mapping[str, float]) -> list[dict]:
    """Groups of weights, with their names, each at its share of the learning rate."""
    of_share: dict[float, list] = {}
    for name, weight in weights.items():
        share = next((share for start, share in shares.items() if name.startswith(start)), 1.0)
        of_share.setdefault(share, []).append((name, weight))
    return [{"params": some, "share": share} for share, some in of_share.items()]


def _reached(folder: Path, files) -> tuple[int, float]:
    """The steps and seconds of training that `folder` holds, whose state is put into `files`."""
    remove_leftovers(folder.parent, glob.escape(folder.name))
    if not folder.is_dir():
        return 0, 0.0
    checkpoint_files.load(folder, files)
    state = checkpoint_files.state_of(folder)
    return state["step"], state["seconds"]


def _step(model: torch.nn.Module, optimizer: Muon, loss_of: Callable[[], torch.Tensor]):
    """A step by the loss, which is returned."""
    with bf16_autocast(next(model.parameters()).device.type):
        loss = loss_of()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss


def _save(folder: Path, files, state: dict, loss: float) -> None:
    if not math.isfinite(loss):
        raise RuntimeError(f"The loss is {loss} at step {state['step']} of {folder.name}.")
    checkpoint_files.save(folder, files, state)
    say(
        f"{folder.name}: step {state['step']}, loss {loss:.4f}, "
        f"{state['step'] / state['seconds']:.2f} steps/s"
    )


def schedule(step: int, share: float) -> float:
    """Share of the peak learning rate after `share` of the training: linear warm-up, then half a
    cosine to zero."""
    return min((step + 1) / WARMUP_STEPS, 0.5 * (1 + math.cos(math.pi * share)))


def _buffers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Running statistics of batch norms: state that no optimizer sees."""
    return {name: value for name, value in model.named_buffers() if value.is_floating_point()}
