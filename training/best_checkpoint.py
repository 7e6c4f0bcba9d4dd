"""Which look was the best, and what may be said of it.

The best of many looks is the luckiest of them, too: what it was chosen by flatters it (Cawley and
Talbot 2010). So it is chosen by one half of what was measured, and told by the other, which had no
part in the choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from core.statistics import bootstrap_interval, can_give_interval, verdict


@dataclass(frozen=True)
class Criterion:
    """What a look is judged by: one value of each held-out picture, or of each prompt."""

    name: str
    lower_is_better: bool

    def chosen_by(self, values: Sequence[float | None], whole: bool = False) -> float | None:
        """The mean over every second value, from the first, or over the `whole` of them: what looks
        are compared by. None where nothing is known of it, or it is no number."""
        known = [value for value in (values if whole else values[::2]) if value is not None]
        mean = sum(known) / len(known) if known else math.nan
        return mean if math.isfinite(mean) else None

    def is_better(self, value: float, other: float) -> bool:
        return value < other if self.lower_is_better else value > other

    def told(self, values: Sequence[float | None], others: Sequence[float | None]) -> dict | None:
        """How much better than `others` the `values` are, by the half that chose nothing: for JSON,
        with the 95 % interval of the mean of paired differences. None where nothing is known."""
        pairs = zip(values[1::2], others[1::2], strict=True)
        known = [(a, b) for a, b in pairs if None not in (a, b) and math.isfinite(a - b)]
        if not known:
            return None
        sign = -1 if self.lower_is_better else 1
        differences = [sign * (value - other) for value, other in known]
        interval = bootstrap_interval(differences) if can_give_interval(differences) else None
        return {
            "value": sum(value for value, _ in known) / len(known),
            "other": sum(other for _, other in known) / len(known),
            "better_by": sum(differences) / len(differences),
            "interval_95": interval and list(interval),
            "measured": len(known),
            "verdict": verdict(interval),
        }


HELD_OUT = Criterion("held-out loss", lower_is_better=True)
CLIP = Criterion("CLIP score", lower_is_better=False)
