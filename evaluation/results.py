"""What is known of one model: its scores, and every metric of `metrics_table`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evaluation.caption_match import fit_any
from evaluation.metric import Metric, Sample, T
from evaluation.metrics_table import METRICS
from evaluation.scores import ModelScores, ScoredImage

if TYPE_CHECKING:
    from evaluation.reference_images import ReferenceImages


@dataclass(frozen=True)
class Result:
    """What is known of one model."""

    following: ModelScores  # does it follow prompts of what it was tuned for?
    keeping: ModelScores | None = None  # does it keep what its base knew?
    measured: Mapping[str, Any] = field(default_factory=dict)  # values of metrics, by their key
    step: int | None = None  # of a checkpoint
    ceiling: float | None = None  # score of the training pictures with their own captions
    caption_accuracy: float | None = None  # how often the scorer tells these captions apart, 0..1
    recalling: ModelScores | None = None  # pictures of training captions, for memorisation

    @property
    def model(self) -> str:
        return self.following.model

    def get(self, metric: Metric[T]) -> T | None:
        """The value of a metric; None if it is not known."""
        return self.measured.get(metric.key)

    @property
    def compared(self) -> list[tuple[str, ScoredImage]]:
        """Pictures that are compared with training pictures, each with its prompt, in the order of
        `Memorisation.nearest`."""
        sets = (self.following, self.recalling)
        return [
            (scores.prompts[number].prompt, each)
            for scores in sets if scores
            for number, each in scores.with_prompts
        ]  # fmt: skip


def result(
    following: ModelScores,
    keeping: ModelScores | None = None,
    reference: ReferenceImages | None = None,
    step: int | None = None,
    recalling: ModelScores | None = None,
) -> Result:
    """Compute all metrics. Without training pictures (`reference`) those that need them are left
    out; `recalling`: pictures of training captions, which are searched for copies too."""
    sample = Sample(following, recalling, reference)
    values = ((metric.key, metric.measured(sample)) for metric in METRICS)
    measured = {key: value for key, value in values if value is not None}
    if reference is None or not following.scored:
        return Result(following, keeping, measured, step)
    return Result(
        following, keeping, measured, step, reference.ceiling, reference.caption_accuracy, recalling
    )


def best_of(results: Sequence[Result]) -> Result | None:
    """The model that follows best on the even prompts, so that the odd ones judge it without
    selection bias; of equals, the one that keeps most. Excludes models that fail prompts which
    others do not, and those whose pictures may fit any of its prompts.

    None without any score, if pictures were made differently, or if no model is left.
    """
    candidates = [r for r in comparable(results) if not fit_any(r.following.half(0).margins)]
    return max(candidates, key=_rank, default=None)


def comparable(results: Sequence[Result]) -> list[Result]:
    """Results with scores for as many prompts as any; none if pictures were made differently."""
    counts = [sum(p.score is not None for p in result.following.prompts) for result in results]
    known = [r for r, count in zip(results, counts, strict=True) if count == max(counts) > 0]
    same = all(r.following.identity == known[0].following.identity for r in known)
    return known if same else []


def _rank(result: Result) -> tuple[float, float]:
    following = result.following.half(0).score
    kept = result.keeping.score if result.keeping else None
    return _or_lowest(following), _or_lowest(kept)


def _or_lowest(value: float | None) -> float:
    return -math.inf if value is None else value
