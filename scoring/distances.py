"""How far two sets of pictures are apart, by their features: KID and CMMD, each with its interval.

Both are the unbiased estimate of a squared maximum mean discrepancy (Gretton et al. 2012, equation
3): 0 on average where both sets come from the same source, so slightly below 0 by chance. Features
are those of the scorer, so numbers of different scorers do not compare, and they are not those of
papers, which take Inception's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scoring.statistics import normal_interval

if TYPE_CHECKING:
    from numpy import ndarray

MIN_PICTURES = 8  # of each set: with fewer, the interval is a guess
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0  # Jayasumana et al. 2024, section 4


@dataclass(frozen=True)
class Distance:
    """A distance and where it lies with 95 % confidence."""

    value: float
    interval: tuple[float, float]


def polynomial(x: ndarray, y: ndarray) -> ndarray:
    """KID's kernel (x . y / D + 1)^3 (Binkowski et al. 2018), for features N,D and M,D of length
    sqrt(D), so that x . y / D is their cosine."""
    return (x @ y.T + 1.0) ** 3  # the features here have length 1


def gaussian(x: ndarray, y: ndarray) -> ndarray:
    """CMMD's kernel exp(-|x - y|^2 / (2 sigma^2)), times 1000, for features of length 1."""
    import numpy as np

    squares = 2.0 - 2.0 * (x @ y.T)
    return CMMD_SCALE * np.exp(-squares / (2 * CMMD_SIGMA**2))


KERNELS = {"kid": polynomial, "cmmd": gaussian}


def distance(kernel: str, made: ndarray, reference: ndarray) -> Distance:
    """Between pictures by their features, float N,D and M,D of length 1: at least MIN_PICTURES
    each. The interval is by leaving out one picture after the other (jackknife)."""
    value, without = _mmd(KERNELS[kernel], made, reference)
    return Distance(value, normal_interval(value, *map(_jackknife_variance, without)))


def difference(kernel: str, made: ndarray, other: ndarray, reference: ndarray) -> Distance:
    """How much farther `made` is from `reference` than `other` is; rows of `made` and `other` are
    pairs, drawn for the same prompt from the same seed. Below 0: it is nearer."""
    (value, ours), (base, theirs) = (
        _mmd(KERNELS[kernel], each, reference) for each in (made, other)
    )
    changes = (_jackknife_variance(a - b) for a, b in zip(ours, theirs, strict=True))
    return Distance(value - base, normal_interval(value - base, *changes))


def _mmd(
    kernel: Callable[[ndarray, ndarray], ndarray], x: ndarray, y: ndarray
) -> tuple[float, tuple[ndarray, ndarray]]:
    """The unbiased squared MMD of N,D and M,D; and what it is without each row of x (N) and
    without each of y (M)."""
    n, m = len(x), len(y)
    if min(n, m) < MIN_PICTURES:
        raise ValueError(f"a distance needs {MIN_PICTURES} pictures of each set")
    x, y = x.astype("float64"), y.astype("float64")
    within_x, within_y, between = kernel(x, x), kernel(y, y), kernel(x, y)
    for within in (within_x, within_y):
        within.flat[:: len(within) + 1] = 0.0  # a picture is no neighbour of itself
    sum_x, sum_y, sum_both = within_x.sum(), within_y.sum(), between.sum()

    def mmd(sx, sy, sb, n, m):
        return sx / (n * (n - 1)) + sy / (m * (m - 1)) - 2 * sb / (n * m)

    without_x = mmd(sum_x - 2 * within_x.sum(1), sum_y, sum_both - between.sum(1), n - 1, m)
    without_y = mmd(sum_x, sum_y - 2 * within_y.sum(1), sum_both - between.sum(0), n, m - 1)
    return float(mmd(sum_x, sum_y, sum_both, n, m)), (without_x, without_y)


def _jackknife_variance(without: ndarray) -> float:
    """Of a statistic, from its values without each of N items (Efron and Stein 1981)."""
    n = len(without)
    return float((n - 1) / n * ((without - without.mean()) ** 2).sum())
