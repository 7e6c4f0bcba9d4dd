"""Is a difference real? Pure functions over one number per prompt."""

import math
from collections.abc import Sequence

CANNOT_TELL = "these prompts cannot tell"
MIN_PROMPTS = 16  # with fewer an interval that says 95 % holds the truth in as few as 70 %
Z = 1.959964  # of the normal distribution, for 95 %
MIN_DIFFERENT = 6  # of them that differ at all; a rare large difference is else not seen


def bootstrap_interval(
    differences: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of the mean of paired differences, by resampling prompts.

    The expanded percentile bootstrap (Hesterberg 2015, "What Teachers Should Know About the
    Bootstrap"): the quantiles are moved out as far as Student's t is wider than the
    normal distribution. Ties tell little of how much those that differ differ, so that t counts
    these alone. From MIN_PROMPTS on, of which MIN_DIFFERENT are not 0, one that says 95 % holds
    the truth in 94 % of cases or more of normal, long-tailed, tied and clamped differences, in 91 %
    or more of exponential ones (docs/verdicts.md).
    The same differences and seed give the same interval. At least 2 differences; `resamples` is a
    multiple of 100.
    """
    import numpy as np

    values = np.asarray(differences, dtype=np.float64)  # N
    if values.size < 2:
        raise ValueError("an interval needs at least two differences")
    random = np.random.default_rng(seed)
    # By hundreds: resamples x N at once would not fit in memory for a large prompt file.
    resampled = (random.choice(values, (100, values.size)) for _ in range(resamples // 100))
    means = np.concatenate([rows.mean(axis=1) for rows in resampled])
    # Ties add to the count, and hardly to what is known of how much those that differ differ.
    tail = _expanded_tail(max(2, int(np.count_nonzero(values))), confidence)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def wilson_interval(hits: float, count: int) -> tuple[float, float]:
    """Where a share of which `hits` of `count` were seen lies with 95 % confidence (Wilson 1927).
    At least 1 seen."""
    middle = (hits + Z**2 / 2) / (count + Z**2)
    reach = Z * math.sqrt(hits * (count - hits) / count + Z**2 / 4) / (count + Z**2)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def t_interval(value: float, *variances: float, freedom: int) -> tuple[float, float]:
    """Where a value lies with 95 % confidence, whose independent errors have these variances,
    estimated from `freedom` + 1 items or more each."""
    from scipy.special import stdtrit

    reach = stdtrit(freedom, 0.975) * math.sqrt(sum(variances))
    return float(value - reach), float(value + reach)


def _expanded_tail(count: int, confidence: float) -> float:
    from scipy.special import ndtr, stdtrit

    t = stdtrit(count - 1, (1 + confidence) / 2)
    return float(ndtr(-math.sqrt(count / (count - 1)) * t))


def can_give_interval(differences: Sequence[float]) -> bool:
    """Whether there are enough differences for an interval that holds what it says; none at all
    between equal scores is certain, too."""
    different = sum(difference != 0 for difference in differences)
    if not different:
        return len(differences) > 1
    return len(differences) >= MIN_PROMPTS and different >= MIN_DIFFERENT


def prompts_to_tell(differences: Sequence[float]) -> int | None:
    """How many prompts would tell a mean difference as large as this one in 80 % of cases, at
    95 % confidence; None where it is 0, or the same for all."""
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
    """What an interval of the mean difference says, in plain words; None: too few prompts."""
    if interval is not None and interval[0] > 0:
        return "better"
    if interval is not None and interval[1] < 0:
        return "worse"
    return CANNOT_TELL
