"""Mean cosines with reference pictures: style, and likeness to a subject (DreamBooth).

They are reported and never decide a verdict: noise can have a high mean cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.statistics import bootstrap_interval, can_give_interval
from evaluation.judges import CSD, DINO
from evaluation.metric import Metric, Sample, number

if TYPE_CHECKING:
    from numpy import ndarray

    from evaluation.reference_images import ReferenceImages
    from evaluation.results import Result

LIKENESSES: dict[str, str | None] = {"CLIP-I": None, "DINO": DINO}  # by the scorer or by a judge


@dataclass(frozen=True)
class SubjectLikeness:
    """100 times the mean pairwise cosine with a subject's pictures; each prompt has the same weight
    (Ruiz et al. 2023, table 1)."""

    value: float
    interval: tuple[float, float] | None  # 95 %, over prompts; None with too few of them
    real: float | None  # the same among the subject's own pictures; None for a single picture

    @property
    def json(self) -> dict:
        return {"value": self.value, "interval_95": self.interval, "own_pictures": self.real}


def likeness_references(reference: ReferenceImages) -> list[tuple[str, str | None, ndarray]]:
    """(name, judge, the subject's features float M,D of length 1) of each likeness that can be
    measured; empty unless the reference is a subject."""
    if not reference.is_subject:
        return []
    features: dict[str | None, ndarray] = {None: reference.features}
    features.update(reference.judged)
    return [(name, judge, features[judge]) for name, judge in LIKENESSES.items()
            if judge in features]  # fmt: skip


def likeness_key(name: str) -> str:
    """A likeness in JSON: CLIP-I is clip_i."""
    return name.lower().replace("-", "_")


def _likeness(values: Sequence[float | None], subject: ndarray) -> SubjectLikeness:
    known = [value for value in values if value is not None]
    interval = bootstrap_interval(known) if can_give_interval(known) else None
    own = _mean_cosine(subject.astype("float64"))
    return SubjectLikeness(sum(known) / len(known), interval, own)


def _mean_cosine(features: ndarray) -> float | None:
    """100 times the mean cosine between different pictures, float M,D of length 1."""
    count = len(features)
    if count < 2:
        return None
    total = features.sum(0)
    return float(100 * (total @ total - count) / (count * (count - 1)))


def _sentence(name: str, result: Result, found: SubjectLikeness) -> str:
    likeness = f"By {name} pictures of {result.model} are as like its subject as {found.value:.2f}"
    if found.interval:
        likeness += f" (95 % interval {found.interval[0]:.2f} to {found.interval[1]:.2f})"
    real = (
        "" if found.real is None else f", its own pictures are so to each other as {found.real:.2f}"
    )
    return f"{likeness}; the same picture is as 100{real}."


def _metric(name: str, meaning: str) -> Metric[SubjectLikeness]:
    def compute(sample: Sample) -> SubjectLikeness | None:
        for each, judge, features in likeness_references(sample.training):
            if each == name:
                return _likeness(sample.following.styles(features.mean(0), judge), features)
        return None

    return Metric(
        f"judges.likeness.{likeness_key(name)}", name, meaning, compute,
        lambda found: number(found.value), lambda found: found.json,
        sentence=lambda result, found: _sentence(name, result, found),
    )  # fmt: skip


def _style_by_csd(sample: Sample) -> float | None:
    if CSD not in sample.training.judged:
        return None
    return sample.following.style(sample.training.judged[CSD].mean(0), CSD)


STYLE = Metric(
    "style",
    "style",
    "100 x mean cosine with the training pictures",
    lambda sample: sample.following.style(sample.training.style),
)
STYLE_CSD = Metric(
    f"judges.{CSD}.style",
    "style (CSD)",
    "the same of what CSD sees: style and not content",
    _style_by_csd,
)
CLIP_I = _metric("CLIP-I", "likeness to its subject, 100 x mean cosine in what the scorer sees")
DINO_LIKENESS = _metric("DINO", "the same in what DINO sees")
