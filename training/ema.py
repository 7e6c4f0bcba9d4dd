"""Exponential moving average (EMA) of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from training.sharding import is_sharded


class Ema:
    """Exponential moving average of weights, with a warm-up for short runs."""

    def __init__(
        self, weights: dict[str, torch.nn.Parameter], decay: float, offloaded: bool = False
    ):
        """`offloaded`: the average is kept in CPU memory."""
        self.decay, self.offloaded = decay, offloaded
        self.shadow = {
            name: weight.detach().to("cpu" if offloaded else weight.device, copy=True)
            for name, weight in weights.items()
        }

    @torch.no_grad()
    def update(self, weights: dict[str, torch.nn.Parameter], updates: int) -> None:
        """Move towards `weights` after optimizer step `updates`, from 0."""
        decay = decay_after(updates, self.decay)
        averages, now = list(self.shadow.values()), list(weights.values())
        if self.offloaded:
            now = [weight.to("cpu") for weight in now]
        torch._foreach_lerp_(averages, now, 1 - decay)

    @torch.no_grad()
    def restart(self, weights: dict[str, torch.nn.Parameter]) -> None:
        """Reset the average to `weights`."""
        for name, average in self.shadow.items():
            average.copy_(weights[name])

    @contextmanager
    def applied_to(self, weights: dict[str, torch.nn.Parameter]) -> Iterator[None]:
        """Context in which `weights` are their average. Storage is swapped, not copied."""
        self._swap(weights)
        try:
            yield
        finally:
            self._swap(weights)

    def _swap(self, weights: dict[str, torch.nn.Parameter]) -> None:
        for name, weight in weights.items():
            if is_sharded(weight):  # FSDP holds its storage, so the contents are swapped
                own = weight.data.clone()
                weight.data.copy_(self.shadow[name])
                self.shadow[name].copy_(own)
                continue
            average = self.shadow[name].to(weight.device)
            self.shadow[name] = weight.data.to(self.shadow[name].device)
            weight.data = average


def decay_after(updates: int, limit: float) -> float:
    """The decay after so many updates, as in diffusers' `EMAModel`: 0 at the first, then rising to
    `limit`."""
    return min(limit, (1 + updates) / (10 + updates)) if updates else 0.0
