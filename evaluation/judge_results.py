"""What networks of others say of a model's pictures, each by the weights that it was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from core.statistics import bootstrap_interval, can_give_interval
from evaluation.fid import fid
from evaluation.judge_options import CSD, DINO, DINOV2, SSCD
from evaluation.mmd import KERNELS, Distance, difference, distance
from evaluation.sscd import Replication, replication

if TYPE_CHECKING:
    from numpy import ndarray

    from evaluation.reference_images import ReferenceImages
    from evaluation.scores import ModelScores, ScoredImage

BY_DISTANCE = CSD, DINOV2  # judges by whose features sets are compared
LIKENESSES = {"CLIP-I": None, "DINO": DINO}  # to a subject, by the scorer or by a judge


@dataclass(frozen=True)
class SubjectLikeness:
    """How like pictures are to those of a subject: 100 times their mean pairwise cosine, each
    prompt counting the same (Ruiz et al. 2023, table 1)."""

    value: float
    interval: tuple[float, float] | None  # 95 %, over prompts; None with too few of them
    real: float | None  # the same among the subject's own pictures; None of a single one


@dataclass(frozen=True)
class JudgeResults:
    """Nothing of a judge that was not asked."""

    distances: dict[str, dict[str, Distance]] = field(default_factory=dict)  # by judge and kernel
    frechet: float | None = None  # by DINOv2
    style: float | None = None  # by CSD, 100 times the mean cosine
    replication: Replication | None = None  # by SSCD
    likeness: dict[str, SubjectLikeness] = field(default_factory=dict)  # by its name


def judged(
    following: ModelScores,
    recalling: ModelScores | None,
    reference: ReferenceImages,
    prompts: ndarray,
    several: bool,
) -> JudgeResults:
    """`prompts`, int N, says which of the pictures of `following` that count belong together;
    `several`, whether there are enough for a distance."""
    shown, seen = following.shown, reference.seen
    far = [judge for judge in BY_DISTANCE if judge in seen and several]
    return JudgeResults(
        {judge: _distances(judge, shown, prompts, reference) for judge in far},
        fid(_stacked(shown, DINOV2), seen[DINOV2]) if DINOV2 in far else None,
        following.style(seen[CSD].mean(0), CSD) if CSD in seen else None,
        _replication([*shown, *(recalling.shown if recalling else ())], reference),
        likenesses(following, reference),
    )


def likenesses(following: ModelScores, reference: ReferenceImages) -> dict[str, SubjectLikeness]:
    """To a subject that the model was taught, by the scorer and, where it was given, by DINO."""
    return {
        name: _likeness(following.styles(features.mean(0), judge), features)
        for name, judge, features in measures_of(reference)
    }


def measures_of(reference: ReferenceImages) -> list[tuple[str, str | None, ndarray]]:
    """Of a likeness: its name, its judge and that one's features of the subject's pictures, float
    M,D of length 1."""
    if not reference.is_subject:
        return []
    seen = {None: reference.features} | reference.seen
    return [(name, judge, seen[judge]) for name, judge in LIKENESSES.items() if judge in seen]


def differences(
    pairs: Sequence[tuple[int, ScoredImage, ScoredImage]], reference: ReferenceImages
) -> dict[str, dict[str, Distance]]:
    """By each judge, how much farther the first pictures of pairs are than the second ones; each
    pair with the number of its prompt."""
    known = [judge for judge in BY_DISTANCE if judge in reference.seen]
    return {judge: _differences(judge, pairs, reference) for judge in known}


def _differences(
    judge: str, pairs: Sequence[tuple[int, ScoredImage, ScoredImage]], reference: ReferenceImages
) -> dict[str, Distance]:
    import numpy as np

    prompts = np.array([number for number, _, _ in pairs])
    both = [_unit(_stacked([row[i] for row in pairs], judge)) for i in (1, 2)]
    real = _unit(reference.seen[judge])
    return {kernel: difference(kernel, *both, prompts, real) for kernel in KERNELS}


def _distances(
    judge: str, shown: Sequence[ScoredImage], prompts: ndarray, reference: ReferenceImages
) -> dict[str, Distance]:
    made, real = _unit(_stacked(shown, judge)), _unit(reference.seen[judge])
    return {kernel: distance(kernel, made, prompts, real) for kernel in KERNELS}


def _replication(shown: Sequence[ScoredImage], reference: ReferenceImages) -> Replication | None:
    if SSCD not in reference.seen:
        return None
    return replication(_stacked(shown, SSCD), reference.seen[SSCD])


def _likeness(values: Sequence[float | None], features: ndarray) -> SubjectLikeness:
    known = [value for value in values if value is not None]
    interval = bootstrap_interval(known) if can_give_interval(known) else None
    return SubjectLikeness(sum(known) / len(known), interval, _real(features.astype("float64")))


def _real(features: ndarray) -> float | None:
    """100 times the mean cosine of different pictures, float M,D of length 1."""
    count = len(features)
    if count < 2:
        return None
    total = features.sum(0)
    return float(100 * (total @ total - count) / (count * (count - 1)))


def _stacked(shown: Sequence[ScoredImage], judge: str) -> ndarray:
    import numpy as np

    return np.stack([each.seen[judge] for each in shown])


def _unit(features: ndarray) -> ndarray:
    import numpy as np

    return features / np.linalg.norm(features, axis=1, keepdims=True)
