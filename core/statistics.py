"""Intervals and verdicts on paired differences, one number per prompt."""

import math
from collections.abc import Sequence

CANNOT_TELL = "these prompts cannot tell"
MIN_PROMPTS = 16  # with fewer, the coverage of a 95 % interval drops to as little as 70 %
Z = 1.959964  # of the normal distribution, for 95 %
MIN_DIFFERENT = 6  # non-zero differences; with fewer, a rare large one is missed


def bootstrap_interval(
    differences: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Confidence interval of the mean of paired differences, by resampling prompts.

    The expanded percentile bootstrap (Hesterberg 2015, "What Teachers Should Know About the
    Bootstrap"): quantiles are widened by the ratio of Student's t to the normal distribution. Zero
    differences say little about the spread, so the degrees of freedom count the others alone. From
    MIN_PROMPTS on, MIN_DIFFERENT of them not 0, the coverage at 95 % is 94 % or more for normal,
    long-tailed, tied and clamped differences, 91 % or more for exponential ones (docs/verdicts.md).
    Deterministic for given differences and seed. At least 2 differences; `resamples` is a multiple
    of 100.
    """
    import numpy as np

    values = np.asarray(differences, dtype=np.float64)  # N
    if values.size < 2:
        raise ValueError("an interval needs at least two differences")
    random = np.random.default_rng(seed)
    # In blocks of 100: resamples x N would not fit into memory for a large prompt file.
    resampled = (random.choice(values, (100, values.size)) for _ in range(resamples // 100))
    means = np.concatenate([rows.mean(axis=1) for rows in resampled])
    # Degrees of freedom from non-zero differences: ties say little about the spread.
    tail = _expanded_tail(max(2, int(np.count_nonzero(values))), confidence)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def wilson_interval(hits: float, count: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion, `hits` of `count` (Wilson 1927). `count` is at
    least 1."""
    middle = (hits + Z**2 / 2) / (count + Z**2)
    reach = Z * math.sqrt(hits * (count - hits) / count + Z**2 / 4) / (count + Z**2)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def t_interval(value: float, *variances: float, freedom: int) -> tuple[float, float]:
    """95 % confidence interval of a value with independent errors of these variances, each with at
    least `freedom` degrees of freedom."""
    from scipy.special import stdtrit

    reach = stdtrit(freedom, 0.975) * math.sqrt(sum(variances))
    return float(value - reach), float(value + reach)


def _expanded_tail(count: int, confidence: float) -> float:
    from scipy.special import ndtr, stdtrit

    t = stdtrit(count - 1, (1 + confidence) / 2)
    return float(ndtr(-math.sqrt(count / (count - 1)) * t))


def can_give_interval(differences: Sequence[float]) -> bool:
    """Whether there are enough differences for nominal coverage; also if all are 0, which is
    certain."""
    different = sum(difference != 0 for difference in differences)
    if not different:
        return len(differences) > 1
    return len(differences) >= MIN_PROMPTS and different >= MIN_DIFFERENT


def prompts_to_tell(differences: Sequence[float]) -> int | None:
    """Sample size for 80 % power at 95 % confidence, given these differences; None if their mean or
    spread is 0."""
    import numpy as np

    mean, spread = np.mean(differences), np.std(differences, ddof=1) if len(differences) > 1 else 0
    if not mean or not spread:
        return None
    needed = ((Z + 0.841621) * spread / mean) ** 2
    return max(MIN_PROMPTS, math.ceil(needed))


def probability_of_superiority(differences: Sequence[float]) -> float:
    """Share of paired differences above zero, 0..1, a tie being half a win: the win rate of scores.
    That of votes, which has an interval of its own, leaves ties out. At least 1 difference."""
    return sum(0.5 if d == 0 else float(d > 0) for d in differences) / len(differences)


def verdict(interval: tuple[float, float] | None) -> str:
    """The verdict of an interval of the mean difference, in words; None: too few prompts."""
    if interval is not None and interval[0] > 0:
        return "better"
    if interval is not None and interval[1] < 0:
        return "worse"
    return CANNOT_TELL
