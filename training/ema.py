"""The moving average of what learns."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from training.sharding import is_sharded


class Ema:
    """Exponential moving average of weights, with warm-up so that short runs have one too."""

    def __init__(
        self, weights: dict[str, torch.nn.Parameter], decay: float, offloaded: bool = False
    ):
        """`offloaded`: the average lies in the memory of the CPU."""
        self.decay, self.offloaded = decay, offloaded
        self.shadow = {
            name: weight.detach().to("cpu" if offloaded else weight.device, copy=True)
            for name, weight in weights.items()
        }

    @torch.no_grad()
    def update(self, weights: dict[str, torch.nn.Parameter], updates: int) -> None:
        """Move towards `weights` after optimizer step number `updates`, counted from 0."""
        decay = decay_after(updates, self.decay)
        averages, now = list(self.shadow.values()), list(weights.values())
        if self.offloaded:
            now = [weight.to("cpu") for weight in now]
        torch._foreach_lerp_(averages, now, 1 - decay)

    @torch.no_grad()
    def restart(self, weights: dict[str, torch.nn.Parameter]) -> None:
        """Begin anew at `weights`."""
        for name, average in self.shadow.items():
            average.copy_(weights[name])

    @contextmanager
    def applied_to(self, weights: dict[str, torch.nn.Parameter]) -> Iterator[None]:
        """Within it, `weights` are their average. Storage is swapped: no copy is made."""
        self._swap(weights)
        try:
            yield
        finally:
            self._swap(weights)

    def _swap(self, weights: dict[str, torch.nn.Parameter]) -> None:
        for name, weight in weights.items():
            if is_sharded(weight):  # its storage is known elsewhere: contents change places
                kept = weight.data.clone()
                weight.data.copy_(self.shadow[name])
                self.shadow[name].copy_(kept)
                continue
            average = self.shadow[name].to(weight.device)
            self.shadow[name] = weight.data.to(self.shadow[name].device)
            weight.data = average


def decay_after(updates: int, most: float) -> float:
    """How much of the average stays after so many updates before, as diffusers' `EMAModel` has it:
    nothing of what was there before the first, then ever more up to `most`."""
    return min(most, (1 + updates) / (10 + updates)) if updates else 0.0
