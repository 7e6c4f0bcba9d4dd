"""What a metric is: how it is computed, printed, saved and put in words.

`metrics_table.METRICS` lists them all. Results, verdict, tables, JSON, report and run.json read
that table, so that a new metric is one module and one line there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from evaluation.features import stacked

if TYPE_CHECKING:
    from numpy import ndarray

    from evaluation.reference_images import ReferenceImages
    from evaluation.results import Result
    from evaluation.scores import ModelScores

T = TypeVar("T")
MIN_SAMPLES = 8  # prompts, and training pictures: a jackknife of fewer is a guess


@dataclass(frozen=True)
class Sample:
    """What metrics are computed from: a model's scored pictures, and the training pictures."""

    following: ModelScores
    recalling: ModelScores | None = None  # of training captions
    reference: ReferenceImages | None = None

    @property
    def training(self) -> ReferenceImages:
        """The reference, which `Metric.needs_reference` guarantees."""
        assert self.reference is not None
        return self.reference

    @cached_property
    def prompts(self) -> ndarray:
        """int N: the prompt's number of each valid picture."""
        import numpy as np

        return np.array([number for number, _ in self.following.with_prompts])

    @property
    def is_large(self) -> bool:
        """Whether there are enough prompts and training pictures for a distance of sets."""
        return min(len(set(self.prompts.tolist())), len(self.training.features)) >= MIN_SAMPLES

    def features(self, judge: str | None = None) -> ndarray:
        """float32 N,D of the valid pictures, by the scorer or by a judge."""
        return stacked(self.following.scored, judge)


def number(value: float | None, sign: str = "") -> str:
    """Two decimals; "failed" for None."""
    if value is None:
        return "failed"
    return f"{round(value, 2) + 0.0:{sign}.2f}"  # + 0.0: no "-0.00"


def signed(value: float) -> str:
    return number(value, "+")


def percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


@dataclass(frozen=True)
class Metric(Generic[T]):
    """A measurement of a model's pictures, of which larger is not always better."""

    key: str  # in JSON; "judges.csd.style" is nested
    column: str  # its name in tables; "" for JSON only
    meaning: str  # in the report, below the name
    compute: Callable[[Sample], T | None]  # None: cannot be known
    text: Callable[[T], str] = number  # type: ignore[assignment]  # the default is for T = float
    to_json: Callable[[T], Any] = lambda value: value
    summary: Callable[[T], Any] | None = None  # for run.json, without a row per picture; as to_json
    sentence: Callable[[Result, T], str | None] | None = None  # in the verdict
    needs_reference: bool = True  # training pictures
    printed: bool = True  # in the terminal's table too, which is narrow

    def measured(self, sample: Sample) -> T | None:
        """The value; None if it cannot be known."""
        if self.needs_reference and (sample.reference is None or not sample.following.scored):
            return None
        return self.compute(sample)
