"""Distances between two sets of pictures in feature space: KID and CMMD, each with an interval.

Both are the unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012,
equation 3): 0 on average for sets of one source, so slightly negative by chance. Features are the
scorer's or a judge's, so the numbers differ from those of papers, which use Inception's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from core.statistics import CANNOT_TELL, t_interval
from evaluation.features import cosines, unit
from evaluation.judges import CSD, DINOV2
from evaluation.metric import MIN_SAMPLES, Metric, Sample

if TYPE_CHECKING:
    from numpy import ndarray

SAME = 1 - 1e-4  # cosine of a picture with itself, saved twice
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0  # Jayasumana et al. 2024, section 4


@dataclass(frozen=True)
class Distance:
    """A distance with its 95 % interval."""

    value: float
    interval: tuple[float, float]
    freedom: float = math.inf  # degrees of freedom of the interval's Student's t

    def at(self, confidence: float) -> Distance:
        """The same distance with an interval of another confidence."""
        from scipy.special import stdtrit

        tails = ((1 + confidence) / 2, 0.975)
        wider, usual = (stdtrit(min(self.freedom, 1e9), tail) for tail in tails)
        low, high = (
            self.value + (end - self.value) * float(wider / usual) for end in self.interval
        )
        return replace(self, interval=(low, high))

    @property
    def text(self) -> str:
        return f"{self.value:.3f} ({self.interval[0]:.3f} to {self.interval[1]:.3f})"

    @property
    def json(self) -> dict:
        return {"value": self.value, "interval_95": self.interval}


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
    """Distance between pictures by their features, float N,D and M,D of length 1.

    `prompts`, int N: the prompt's number of each picture; pictures of one prompt are not
    independent. The interval is a jackknife over prompts and over training pictures, at least
    MIN_SAMPLES of each.
    """
    value, without = _mmd(KERNELS[kernel], made, prompts, reference)
    return _estimate(value, without)


def difference(
    kernel: str, made: ndarray, other: ndarray, prompts: ndarray, reference: ndarray
) -> Distance:
    """How much farther `made` is from `reference` than `other` is; below 0 it is nearer. Rows of
    `made` and `other` are pairs: of the same prompt and seed."""
    (value, ours), (base, theirs) = (
        _mmd(KERNELS[kernel], each, prompts, reference) for each in (made, other)
    )
    return _estimate(value - base, [a - b for a, b in zip(ours, theirs, strict=True)])


def nearness(distances: Mapping[str, Distance]) -> str:
    """Verdict on differences, one by each kernel: "better" if all intervals are below 0, "worse" if
    all are above. A single kernel can be fooled."""
    if distances and all(each.interval[1] < 0 for each in distances.values()):
        return "better"
    if distances and all(each.interval[0] > 0 for each in distances.values()):
        return "worse"
    return CANNOT_TELL


def repeats(made: ndarray, prompts: ndarray, reference: ndarray) -> bool:
    """Whether pictures of different prompts (features of length 1) are near duplicates: the median
    nearest neighbour is as near as only 5 % of the training pictures' are.

    Such a set can be near the training pictures on average although it shows one or a few of them
    for every prompt. Nearest neighbours get nearer in larger sets, so they are searched in random
    parts of at most as many pictures as training has."""
    import numpy as np

    count = -(-len(made) // len(reference))
    parts = np.array_split(np.random.default_rng(0).permutation(len(made)), count)
    nearest = np.concatenate([_nearest_of_others(made[part], prompts[part]) for part in parts])
    return bool(np.median(nearest) > np.quantile(_nearest_distinct(reference), 0.95))


def _nearest_of_others(made: ndarray, prompts: ndarray) -> ndarray:
    """Cosine of each picture with its nearest neighbour of another prompt."""
    import numpy as np

    return np.where(prompts[:, None] != prompts, made @ made.T, -1.0).max(1)


def _nearest_distinct(reference: ndarray) -> ndarray:
    """Cosine of each picture with its nearest neighbour that is not a duplicate."""
    import numpy as np

    blocks = cosines(reference, reference)
    return np.concatenate([np.where(each < SAME, each, -1.0).max(1) for each in blocks])


def _mmd(
    kernel: Callable[[ndarray, ndarray], ndarray], x: ndarray, prompts: ndarray, y: ndarray
) -> tuple[float, tuple[ndarray, ndarray]]:
    """The unbiased squared MMD of N,D and M,D; and its jackknife replicates: without the rows of x
    of each of P prompts (P), and without each row of y (M)."""
    import numpy as np

    n, m = len(x), len(y)
    belongs = (prompts == np.unique(prompts)[:, None]).astype("float64")  # P,N
    if min(len(belongs), m) < MIN_SAMPLES:
        raise ValueError(f"a distance needs {MIN_SAMPLES} prompts and training pictures")
    x, y = x.astype("float64"), y.astype("float64")
    within_x, within_y, between = kernel(x, x), kernel(y, y), kernel(x, y)
    within_x[prompts[:, None] == prompts] = 0.0  # alike because of their prompt, or identical
    within_y.flat[:: m + 1] = 0.0  # without the diagonal
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
    freedom = min(map(len, without)) - 1
    variances = map(_jackknife_variance, without)
    return Distance(value, t_interval(value, *variances, freedom=freedom), freedom)


def _jackknife_variance(without: ndarray) -> float:
    """Variance of a statistic from its values without each of N items (Efron and Stein 1981)."""
    n = len(without)
    return float((n - 1) / n * ((without - without.mean()) ** 2).sum())


def _metric(kernel: str, judge: str | None, column: str, meaning: str) -> Metric[Distance]:
    def compute(sample: Sample) -> Distance | None:
        if not sample.is_large or (judge and judge not in sample.training.judged):
            return None
        made, reference = sample.features(judge), sample.training.features
        if judge:
            made, reference = unit(made), unit(sample.training.judged[judge])
        return distance(kernel, made, sample.prompts, reference)

    return Metric(
        f"judges.{judge}.distances.{kernel}" if judge else f"distances.{kernel}",
        column, meaning, compute, lambda found: found.text, lambda found: found.json,
    )  # fmt: skip


KID = _metric(
    "kid", None, "KID", "kernel distance to the training pictures, 0 for none (95 % interval)"
)
CMMD = _metric("cmmd", None, "CMMD", "the same with another kernel, times 1000")
KID_CSD = _metric("kid", CSD, "KID (CSD)", "the kernel distance in what CSD sees (95 % interval)")
CMMD_CSD = _metric("cmmd", CSD, "", "")
KID_DINOV2 = _metric(
    "kid", DINOV2, "KID (DINOv2)", "the kernel distance in what DINOv2 sees (95 % interval)"
)
CMMD_DINOV2 = _metric("cmmd", DINOV2, "", "")
