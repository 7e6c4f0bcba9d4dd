"""Scores of a model's pictures, and how they were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from core.statistics import wilson_interval
from evaluation.caption_match import exchanged, margins

if TYPE_CHECKING:
    from numpy import ndarray


@dataclass(frozen=True)
class ScoredImage:
    """Scores and features of a picture; one with a `problem` has neither."""

    seed: int | None
    score: float | None  # 0..100
    problem: str | None = None  # why it was left out: "flagged", "black", "blank", "non-finite"
    bound: bool | None = None  # whether both things have their own colour; None unless both appear
    features: ndarray | None = field(default=None, repr=False)  # float32 D, of length 1
    text: ndarray | None = field(default=None, repr=False)  # of its prompt, likewise
    judged: dict[str, ndarray] = field(default_factory=dict, repr=False)  # features by each judge
    coloured: bool | None = None  # whether the pixels have the colour that the prompt names
    hash: int | None = None  # perceptual, 64 bits
    reduced: ndarray | None = field(default=None, repr=False)  # uint8 64,64,3
    thumbnail: bytes = field(default=b"", repr=False)  # JPEG


@dataclass(frozen=True)
class PromptScore:
    """The pictures of one prompt."""

    prompt: str
    images: tuple[ScoredImage, ...]

    @property
    def pictures(self) -> tuple[float | None, ...]:
        """The pictures' scores, 0..100; None for one with a problem."""
        return tuple(each.score for each in self.images)

    @property
    def problems(self) -> tuple[str | None, ...]:
        return tuple(each.problem for each in self.images)

    @property
    def score(self) -> float | None:
        """Mean over the valid pictures; None if there is none."""
        return mean(self.pictures)

    def styles(self, style: ndarray, judge: str | None = None) -> tuple[float | None, ...]:
        """100 times each picture's mean cosine (-100..100) with reference pictures, given their
        mean features `style` (D); in the features of the scorer or of a judge."""
        features = (each.judged.get(judge) if judge else each.features for each in self.images)
        return tuple(None if each is None else 100 * float(each @ style) for each in features)


@dataclass(frozen=True)
class ModelScores:
    """All prompts of one model, and how they were scored."""

    model: str
    run_id: str | None
    identity: dict  # scorer, prompts, seeds, sampling, versions: everything but the model
    prompts: tuple[PromptScore, ...]

    @property
    def score(self) -> float | None:
        """Mean over the prompts that have a score; each has the same weight."""
        return mean([prompt.score for prompt in self.prompts])

    @property
    def left_out(self) -> int:
        """Number of pictures with a problem."""
        return sum(problem is not None for prompt in self.prompts for problem in prompt.problems)

    @property
    def scored(self) -> list[ScoredImage]:
        """All valid pictures, in order."""
        return [each for _, each in self.with_prompts]

    @property
    def with_prompts(self) -> list[tuple[int, ScoredImage]]:
        """All valid pictures with the number of their prompt."""
        return [
            (number, each)
            for number, prompt in enumerate(self.prompts)
            for each in prompt.images if each.problem is None
        ]  # fmt: skip

    def styles(self, style: ndarray, judge: str | None = None) -> list[float | None]:
        """Mean of the pictures' `styles`, per prompt."""
        return [mean(prompt.styles(style, judge)) for prompt in self.prompts]

    def style(self, style: ndarray, judge: str | None = None) -> float | None:
        """Mean over the prompts."""
        return mean(self.styles(style, judge))

    @cached_property
    def floor(self) -> float | None:
        """Score of the same pictures with captions exchanged; None with fewer than 2 captions."""
        return exchanged(self.prompts)

    @cached_property
    def margins(self) -> tuple[float, ...]:
        """By how much each prompt's pictures fit it better than the other prompts."""
        return margins(self.prompts)

    @property
    def binding(self) -> Share | None:
        """Share of the pictures showing both things of their prompt that fit it better than the
        prompt with swapped colours; None if no picture shows both."""
        return Share.of([[each.bound for each in prompt.images] for prompt in self.prompts])

    @property
    def coloured(self) -> Share | None:
        """Share of the pictures whose body has the colour that the prompt names; None if colours
        were not read."""
        return Share.of([[each.coloured for each in prompt.images] for prompt in self.prompts])

    def half(self, number: int) -> ModelScores:
        """The even (0) or the odd (1) prompts."""
        return replace(self, prompts=self.prompts[number::2])


@dataclass(frozen=True)
class Share:
    """`hits` of `count` pictures, which belong to `prompts` prompts."""

    hits: int
    count: int
    prompts: int

    @classmethod
    def of(cls, prompts: Sequence[Sequence[bool | None]]) -> Share | None:
        """From a row per prompt, with an entry per picture; None entries do not count."""
        known = [[each for each in row if each is not None] for row in prompts]
        known = [row for row in known if row]
        return cls(sum(map(sum, known)), sum(map(len, known)), len(known)) if known else None

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval that treats the pictures of a prompt as one: conservative."""
        return wilson_interval(self.hits / self.count * self.prompts, self.prompts)

    @property
    def text(self) -> str:
        return f"{self.hits} of {self.count}"


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the known values; None if there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
