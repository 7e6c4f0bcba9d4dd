"""Vendi score (Friedman and Dieng 2023): how many different pictures a set is worth.

A model that was trained too long draws the same few things for every prompt, and a CLIP score does
not notice. The score says nothing of quality: noise can be varied. So less variety than that of the
training pictures is a warning, and more is no praise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.statistics import MIN_PROMPTS
from evaluation.metric import Metric, Sample

if TYPE_CHECKING:
    from numpy import ndarray

    from evaluation.results import Result

MAX_PICTURES = 128  # compared at once, one of each prompt: bounds the time
DRAWS = 200  # of as many training pictures at random
Z = 2.575829  # of the normal distribution, for 99 %


@dataclass(frozen=True)
class Variety:
    """The Vendi score of one picture of each prompt, and of as many training pictures."""

    value: float  # 1..pictures
    pictures: int
    training: float  # mean over random draws of training pictures
    interval: tuple[float, float]  # 99 % of draws lie in it

    @property
    def is_less(self) -> bool:
        return self.value < self.interval[0]


def vendi(features: ndarray) -> float:
    """exp of the entropy of the eigenvalues of K / N, for the cosine kernel K of features N,D of
    length 1: 1 if all pictures are the same, N if all are orthogonal."""
    import numpy as np

    count, width = features.shape
    gram = features @ features.T if count <= width else features.T @ features
    shares = np.linalg.eigvalsh(gram / count).clip(1e-12)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def variety(made: ndarray, reference: ndarray) -> Variety | None:
    """Compare pictures of different prompts with training pictures by their features, float N,D and
    M,D of length 1; None with fewer than MIN_PROMPTS pictures, or fewer than twice as many training
    pictures."""
    import numpy as np

    random = np.random.default_rng(0)
    count = min(len(made), len(reference) // 2, MAX_PICTURES)
    if count < MIN_PROMPTS:
        return None
    made, reference = made.astype("float64"), reference.astype("float64")

    def draws(features: ndarray, times: int) -> ndarray:
        return np.array([vendi(random.choice(features, count, False)) for _ in range(times)])

    value = vendi(made) if len(made) == count else draws(made, DRAWS).mean()
    scores = draws(reference, DRAWS)
    # Drawn without replacement from few pictures, draws overlap and differ less than new sets do.
    reach = Z * scores.std(ddof=1) / np.sqrt(1 - count / len(reference))
    mean = float(scores.mean())
    return Variety(float(value), count, mean, (mean - float(reach), mean + float(reach)))


def _compute(sample: Sample) -> Variety | None:
    """Of each prompt its first valid picture: pictures of one prompt should be alike."""
    import numpy as np

    if not len(sample.prompts):
        return None
    _, first = np.unique(sample.prompts, return_index=True)
    return variety(sample.features()[first], sample.training.features)


def _json(found: Variety) -> dict:
    return {
        "vendi_score": found.value,
        "pictures": found.pictures,
        "training_pictures": found.training,
        "interval_99": found.interval,
    }


def _text(found: Variety) -> str:
    low, high = found.interval
    return f"{found.value:.1f} (training pictures {low:.1f} to {high:.1f})"


def _sentence(result: Result, found: Variety) -> str | None:
    """A warning, or nothing."""
    if not found.is_less:
        return None
    low, high = found.interval
    return (
        f"Pictures of {result.model} are less varied than its training pictures: {found.pictures} "
        f"of different prompts are worth {found.value:.1f} different ones (Vendi score), as many "
        f"training pictures {low:.1f} to {high:.1f}. Prompts that are all alike give that, too."
    )


VENDI = Metric(
    "variety",
    "variety",
    "Vendi score of one picture of each prompt: how many different ones they are worth",
    _compute,
    _text,
    _json,
    sentence=_sentence,
    printed=False,
)
