"""Choice of the best checkpoint, and an unbiased estimate of how good it is.

The best of many validations is also the luckiest, so that the values that chose it flatter it
(Cawley and Talbot 2010). Hence one half of the values chooses, and the other half, which had no
part in the choice, is reported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from core.statistics import bootstrap_interval, can_give_interval, verdict

Values = Sequence[float | None]  # None where one could not be measured


@dataclass(frozen=True)
class Criterion:
    """What validations are compared by: one value per held-out picture, or per prompt."""

    name: str
    lower_is_better: bool

    def chosen_by(self, values: Values, whole: bool = False) -> float | None:
        """The mean over every other value, from the first, or over all if `whole`. None where no
        value is known or the mean is non-finite."""
        known = [value for value in (values if whole else values[::2]) if value is not None]
        mean = sum(known) / len(known) if known else math.nan
        return mean if math.isfinite(mean) else None

    def is_better(self, value: float, other: float) -> bool:
        return value < other if self.lower_is_better else value > other

    def compared(self, values: Values, others: Values) -> dict | None:
        """How much better `values` are than `others` by the half that did not choose, as JSON: with
        the 95 % interval of the mean paired difference. None where no value is known."""
        pairs = zip(values[1::2], others[1::2], strict=True)
        known = [
            (a, b) for a, b in pairs if a is not None and b is not None and math.isfinite(a - b)
        ]
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
