"""How far two sets of pictures are apart, by their features: KID and CMMD, each with its interval.

Both are the unbiased estimate of a squared maximum mean discrepancy (Gretton et al. 2012, equation
3): 0 on average where both sets come from the same source, so slightly below 0 by chance. Features
are those of the scorer, so numbers of different scorers do not compare, and they are not those of
papers, which take Inception's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from core.statistics import CANNOT_TELL, t_interval

if TYPE_CHECKING:
    from numpy import ndarray

SAME = 1 - 1e-4  # cosine of a picture and itself, saved twice
PART = 1024  # pictures compared at once
MIN_ITEMS = 8  # prompts, and training pictures; a comparison of scores takes 16 (core.statistics)
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0  # Jayasumana et al. 2024, section 4


@dataclass(frozen=True)
class Distance:
    """A distance and where it lies with 95 % confidence."""

    value: float
    interval: tuple[float, float]
    freedom: float = math.inf  # of Student's t, by which the interval was made

    def at(self, confidence: float) -> Distance:
        """The same with an interval of another confidence."""
        from scipy.special import stdtrit

        tails = ((1 + confidence) / 2, 0.975)
        wider, usual = (stdtrit(min(self.freedom, 1e9), tail) for tail in tails)
        ends = (self.value + (end - self.value) * float(wider / usual) for end in self.interval)
        return replace(self, interval=tuple(ends))


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


def distance(kernel: str, made: ndarray, prompts: ndarray, reference: ndarray) -> Distance:
    """Between pictures by their features, float N,D and M,D of length 1.

    `prompts`, int N, says which pictures belong together: those of one prompt are alike. The
    interval is by leaving out one prompt, or training picture, after the other (jackknife): at
    least MIN_ITEMS of each.
    """
    value, without = _mmd(KERNELS[kernel], made, prompts, reference)
    return _estimate(value, without)


def difference(
    kernel: str, made: ndarray, other: ndarray, prompts: ndarray, reference: ndarray
) -> Distance:
    """How much farther `made` is from `reference` than `other` is; rows of `made` and `other` are
    pairs, drawn for the same prompt from the same seed. Below 0: it is nearer."""
    (value, ours), (base, theirs) = (
        _mmd(KERNELS[kernel], each, prompts, reference) for each in (made, other)
    )
    return _estimate(value - base, [a - b for a, b in zip(ours, theirs, strict=True)])


def nearness(distances: Mapping[str, Distance]) -> str:
    """What differences say, one by each kernel: "better" where all of them are surely nearer,
    "worse" where all are surely farther. One kernel alone can be fooled."""
    if distances and all(each.interval[1] < 0 for each in distances.values()):
        return "better"
    if distances and all(each.interval[0] > 0 for each in distances.values()):
        return "worse"
    return CANNOT_TELL


def repeats(made: ndarray, prompts: ndarray, reference: ndarray) -> bool:
    """Whether pictures of different prompts, by features of length 1, are nearly the same: most
    have a neighbour as near as only 5 % of different training pictures have.

    Such a set can be near to the training pictures on average, and draws one or a few of them for
    everything. The more pictures there are, the nearer the nearest one is, of whatever source: so
    neighbours are sought among at most as many pictures as training has, chosen at random."""
    import numpy as np

    count = -(-len(made) // len(reference))
    parts = np.array_split(np.random.default_rng(0).permutation(len(made)), count)
    nearest = np.concatenate([_nearest_of_others(made[part], prompts[part]) for part in parts])
    return bool(np.median(nearest) > np.quantile(_nearest_others(reference), 0.95))


def _nearest_of_others(made: ndarray, prompts: ndarray) -> ndarray:
    """The cosine of each picture with its nearest one of another prompt."""
    import numpy as np

    return np.where(prompts[:, None] != prompts, made @ made.T, -1.0).max(1)


def _nearest_others(reference: ndarray) -> ndarray:
    """The cosine of each picture with its nearest one that is not the same."""
    import numpy as np

    parts = np.array_split(reference, -(-len(reference) // PART))
    cosines = (part @ reference.T for part in parts)  # at most PART x M at once
    found = [np.where(each < SAME, each, -1.0).max(1) for each in cosines]
    return np.concatenate(found)


def _mmd(
    kernel: Callable[[ndarray, ndarray], ndarray], x: ndarray, prompts: ndarray, y: ndarray
) -> tuple[float, tuple[ndarray, ndarray]]:
    """The unbiased squared MMD of N,D and M,D; and what it is without the rows of x of each of P
    prompts (P), and without each row of y (M)."""
    import numpy as np

    n, m = len(x), len(y)
    belongs = (prompts == np.unique(prompts)[:, None]).astype("float64")  # P,N
    if min(len(belongs), m) < MIN_ITEMS:
        raise ValueError(f"a distance needs {MIN_ITEMS} prompts and training pictures")
    x, y = x.astype("float64"), y.astype("float64")
    within_x, within_y, between = kernel(x, x), kernel(y, y), kernel(x, y)
    within_x[prompts[:, None] == prompts] = 0.0  # alike because of their prompt, or the same
    within_y.flat[:: m + 1] = 0.0  # a picture is no neighbour of itself
    sum_x, sum_y, sum_both = within_x.sum(), within_y.sum(), between.sum()
    sizes = belongs.sum(1)
    pairs_x, pairs_y = n**2 - (sizes**2).sum(), m * (m - 1)

    def mmd(sx, sy, sb, px, py, pb):
        return sx / px + sy / py - 2 * sb / pb

    without_x = mmd(
        sum_x - 2 * belongs @ within_x.sum(1), sum_y, sum_both - belongs @ between.sum(1),
        pairs_x - 2 * sizes * (n - sizes), pairs_y, (n - sizes) * m,
    )  # fmt: skip
    without_y = mmd(
        sum_x, sum_y - 2 * within_y.sum(1), sum_both - between.sum(0),
        pairs_x, (m - 1) * (m - 2), n * (m - 1),
    )  # fmt: skip
    whole = mmd(sum_x, sum_y, sum_both, pairs_x, pairs_y, n * m)
    return float(whole), (without_x, without_y)


def _estimate(value: float, without: Sequence[ndarray]) -> Distance:
    variances, freedom = map(_jackknife_variance, without), min(map(len, without)) - 1
    return Distance(value, t_interval(value, *variances, freedom=freedom), freedom)


def _jackknife_variance(without: ndarray) -> float:
    """Of a statistic, from its values without each of N items (Efron and Stein 1981)."""
    n = len(without)
    return float((n - 1) / n * ((without - without.mean()) ** 2).sum())
