"""Scores that know how they were made, and the comparison of two models by them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from core.errors import UserError
from core.statistics import (
    CANNOT_TELL,
    bootstrap_interval,
    can_give_interval,
    probability_of_superiority,
    verdict,
    wilson_interval,
)
from evaluation.caption_match import exchanged, fit_any, margins
from evaluation.judge_results import JudgeResults
from evaluation.memorisation import Memorisation
from evaluation.mmd import Distance, nearness

if TYPE_CHECKING:
    from numpy import ndarray


@dataclass(frozen=True)
class ScoredImage:
    """A picture as the scorer saw it; one with a `problem` has no score and no features."""

    seed: int | None
    score: float | None  # 0..100
    problem: str | None = None  # why it was left out: "flagged", "black", "non-finite"
    bound: bool | None = None  # whether both things have their own colour, where both are there
    features: ndarray | None = field(default=None, repr=False)  # float32 D, of length 1
    text: ndarray | None = field(default=None, repr=False)  # likewise, of the prompt
    seen: dict[str, ndarray] = field(default_factory=dict, repr=False)  # features by each judge
    coloured: bool | None = None  # whether the pixels have the colour that the prompt names
    hash: int | None = None  # perceptual, 64 bits
    reduced: ndarray | None = field(default=None, repr=False)  # uint8 64,64,3
    thumbnail: bytes = field(default=b"", repr=False)  # JPEG


@dataclass(frozen=True)
class PromptScore:
    """The pictures of one prompt."""

    prompt: str
    shown: tuple[ScoredImage, ...]

    @property
    def pictures(self) -> tuple[float | None, ...]:
        """Their scores, 0..100; None where there is a problem."""
        return tuple(each.score for each in self.shown)

    @property
    def problems(self) -> tuple[str | None, ...]:
        return tuple(each.problem for each in self.shown)

    @property
    def score(self) -> float | None:
        """Mean over the pictures that count; None where none does."""
        return mean(self.pictures)

    def styles(self, style: ndarray, judge: str | None = None) -> tuple[float | None, ...]:
        """How much each picture is in the style of others, whose mean features `style` (D) are:
        100 times the mean cosine, -100..100; by the scorer, or by a judge."""
        features = (each.seen.get(judge) if judge else each.features for each in self.shown)
        return tuple(None if each is None else 100 * float(each @ style) for each in features)


@dataclass(frozen=True)
class ModelScores:
    """All prompts of one model, and how they were made."""

    model: str
    run_id: str | None
    identity: dict  # scorer, prompts, seeds, sampling, versions: all but the model
    prompts: tuple[PromptScore, ...]

    @property
    def score(self) -> float | None:
        """Mean over the prompts that have a score, so that each counts the same."""
        return mean([prompt.score for prompt in self.prompts])

    @property
    def left_out(self) -> int:
        """Pictures that were drawn but not scored."""
        return sum(problem is not None for prompt in self.prompts for problem in prompt.problems)

    @property
    def shown(self) -> list[ScoredImage]:
        """All pictures that count, in order."""
        return [each for prompt in self.prompts for each in prompt.shown if each.problem is None]

    def styles(self, style: ndarray, judge: str | None = None) -> list[float | None]:
        """Of each prompt, the mean of its pictures' `styles`."""
        return [mean(prompt.styles(style, judge)) for prompt in self.prompts]

    def style(self, style: ndarray, judge: str | None = None) -> float | None:
        """Mean over the prompts."""
        return mean(self.styles(style, judge))

    @cached_property
    def floor(self) -> float | None:
        """The score of the same pictures with the captions exchanged; None with a single one."""
        return exchanged(self.prompts)

    @cached_property
    def margins(self) -> tuple[float, ...]:
        """By how much each prompt's pictures fit it better than the other prompts."""
        return margins(self.prompts)

    @property
    def binding(self) -> Share | None:
        """How often a picture that shows both things of its prompt fits that better than the one
        with swapped colours; None where no picture shows two."""
        return Share.of(
            [
                [each.bound for each in prompt.shown if each.bound is not None]
                for prompt in self.prompts
            ]
        )

    @property
    def coloured(self) -> Share | None:
        """How often the pixels of the body have the colour that the prompt names; None where
        nobody looked."""
        return Share.of(
            [
                [each.coloured for each in prompt.shown if each.coloured is not None]
                for prompt in self.prompts
            ]
        )


@dataclass(frozen=True)
class Share:
    """`hits` of `count` pictures, of so many prompts."""

    hits: int
    count: int
    prompts: int

    @classmethod
    def of(cls, prompts: list[list[bool]]) -> Share | None:
        """Of the pictures of each prompt; None where there is none."""
        some = [pictures for pictures in prompts if pictures]
        return cls(sum(map(sum, some)), sum(map(len, some)), len(some)) if some else None

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, as if the pictures of a prompt were all alike: never too narrow."""
        return wilson_interval(self.hits / self.count * self.prompts, self.prompts)


@dataclass(frozen=True)
class Comparison:
    """A model against its base at the same prompts and seeds. Above zero: the model is better."""

    differences: tuple[float | None, ...]  # one a prompt; None where a side has no picture
    claims: int = 1  # so many models are compared with the base: all are right with 95 %
    margins: tuple[float, ...] = ()  # of the model's pictures

    @property
    def known(self) -> list[float]:
        return [difference for difference in self.differences if difference is not None]

    @property
    def mean(self) -> float | None:
        return mean(self.differences)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Where the mean lies with 95 % confidence; None with too few prompts to say."""
        return bootstrap_interval(self.known) if can_give_interval(self.known) else None

    @property
    def confidence(self) -> float:
        """Of a claim, so that all of them are right with 95 % (Bonferroni)."""
        return 1 - 0.05 / self.claims

    @cached_property
    def claimed(self) -> tuple[float, float] | None:
        """The interval that the verdict rests on: wider where there are several claims."""
        if self.claims == 1 or self.interval is None:
            return self.interval
        return bootstrap_interval(self.known, confidence=self.confidence)

    @property
    def win_rate(self) -> float | None:
        return probability_of_superiority(self.known) if self.known else None

    @cached_property
    def is_no_following(self) -> bool:
        """Whether the scores are higher and yet the pictures may fit any of the prompts."""
        higher = verdict(self.claimed) == "better"
        return higher and fit_any(self.margins, self.confidence)

    @property
    def verdict(self) -> str:
        return CANNOT_TELL if self.is_no_following else verdict(self.claimed)


@dataclass(frozen=True)
class Result:
    """What is known of one model: three questions, and what its pictures give away."""

    following: ModelScores  # does it follow prompts of what it was tuned for?
    keeping: ModelScores | None = None  # does it keep what its base knew?
    style: float | None = None  # has it the style of its training pictures? -100..100
    distances: dict[str, Distance] = field(default_factory=dict)  # to them, by name
    fid: float | None = None  # to them, where an Inception is given
    memorisation: Memorisation | None = None
    step: int | None = None  # of a checkpoint
    ceiling: float | None = None  # score of the training pictures for their own captions
    told_apart: float | None = None  # how often these fit their own better than another, 0..1
    recalling: ModelScores | None = None  # pictures of training captions, where copies are sought
    judged: JudgeResults = field(default_factory=JudgeResults)  # by networks of others

    @property
    def model(self) -> str:
        return self.following.model

    @property
    def sought(self) -> list[tuple[str, ScoredImage]]:
        """Pictures among which copies are sought, each with its prompt, in the order of
        `memorisation.nearest`."""
        sets = (self.following, self.recalling)
        return [
            (prompt.prompt, each)
            for scores in sets if scores
            for prompt in scores.prompts for each in prompt.shown if each.problem is None
        ]  # fmt: skip


@dataclass(frozen=True)
class AgainstBase:
    """A model against its base."""

    model: Result
    base: Result
    following: Comparison
    keeping: Comparison | None = None
    style: Comparison | None = None
    distances: dict[str, Distance] = field(default_factory=dict)  # differences: below 0 is nearer
    repeats: bool = False  # the model's pictures of different prompts are nearly the same
    judged: dict[str, dict[str, Distance]] = field(default_factory=dict)  # likewise, by each judge
    likeness: dict[str, Comparison] = field(default_factory=dict)  # to its subject

    @property
    def nearness(self) -> str:
        """Whether the model's pictures, as a set, are nearer to the training pictures."""
        return self.nearness_by(self.distances)

    def nearness_by(self, distances: dict[str, Distance]) -> str:
        """The same by differences of another's features."""
        confidence = self.following.confidence
        found = nearness({name: each.at(confidence) for name, each in distances.items()})
        return CANNOT_TELL if self.repeats and found == "better" else found


def compare(model: ModelScores, base: ModelScores) -> Comparison:
    """Paired differences, model minus base. Raises UserError where they were made differently."""
    require_same_making(model.identity, base.identity)
    return Comparison(
        tuple(
            _difference(ours.pictures, theirs.pictures)
            for ours, theirs in zip(model.prompts, base.prompts, strict=True)
        ),
        margins=model.margins,
    )


def compare_styles(
    model: ModelScores, base: ModelScores, style: ndarray, judge: str | None = None
) -> Comparison:
    """The same of how much their pictures are in a style: the mean features of others, float D."""
    return Comparison(
        tuple(
            _difference(ours.styles(style, judge), theirs.styles(style, judge))
            for ours, theirs in zip(model.prompts, base.prompts, strict=True)
        )
    )


def twins(model: ModelScores, base: ModelScores) -> list[tuple[int, ScoredImage, ScoredImage]]:
    """Pictures of the same prompts and seeds, where both sides have one: the prompt's number, and
    both."""
    return [
        (number, ours, theirs)
        for number, pair in enumerate(zip(model.prompts, base.prompts, strict=True))
        for ours, theirs in zip(pair[0].shown, pair[1].shown, strict=True)
        if ours.problem is theirs.problem is None
    ]


def require_same_making(model: dict, base: dict) -> None:
    """Raise a UserError that names the first thing in which two identities differ."""
    for key in sorted(model.keys() | base.keys()):
        ours, theirs = model.get(key), base.get(key)
        if ours != theirs:
            raise UserError(
                f"These scores cannot be compared: {key} is {ours} for the model and {theirs} "
                "for the base. Make both in the same way."
            )


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _difference(model: Sequence[float | None], base: Sequence[float | None]) -> float | None:
    """Over the seeds that both sides drew: a picture is compared with its twin alone."""
    pairs = zip(model, base, strict=True)
    return mean([None if None in pair else pair[0] - pair[1] for pair in pairs])


def half_of(scores: ModelScores, number: int) -> ModelScores:
    """Of the prompts every second one, from the first (0) or from the second (1)."""
    return replace(scores, prompts=scores.prompts[number::2])


def best_of(results: Sequence[Result]) -> Result | None:
    """The model that follows best on the first half of the prompts, so that what it does on the
    second is not flattered by the choice; of equals, the one that keeps most. A model that fails
    prompts which others do not is not asked, nor one whose pictures may fit any of its prompts.

    None without any score, where pictures were made differently, and where none is left.
    """
    follow = [r for r in comparable(results) if not fit_any(half_of(r.following, 0).margins)]
    return max(follow, key=_merit, default=None)


def comparable(results: Sequence[Result]) -> list[Result]:
    """Those that have a score for most prompts; none where pictures were made differently."""
    counts = [sum(p.score is not None for p in result.following.prompts) for result in results]
    known = [r for r, count in zip(results, counts, strict=True) if count == max(counts) > 0]
    same = all(r.following.identity == known[0].following.identity for r in known)
    return known if same else []


def _merit(result: Result) -> tuple[float, float]:
    following = half_of(result.following, 0).score
    kept = result.keeping.score if result.keeping else None
    return tuple(-math.inf if value is None else value for value in (following, kept))
