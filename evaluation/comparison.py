"""A model compared with its base, at the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
)
from evaluation.caption_match import fit_any
from evaluation.features import stacked, unit
from evaluation.judges import CSD, DINOV2
from evaluation.likeness import likeness_references
from evaluation.metric import MIN_SAMPLES
from evaluation.mmd import KERNELS, Distance, difference, nearness, repeats
from evaluation.results import Result
from evaluation.scores import ModelScores, ScoredImage, mean
from sampling.few_steps import OF_DRAWING

if TYPE_CHECKING:
    from numpy import ndarray

    from evaluation.reference_images import ReferenceImages

Pair = tuple[int, ScoredImage, ScoredImage]  # a prompt's number; pictures of one seed


@dataclass(frozen=True)
class Comparison:
    """Paired differences, model minus base. Above zero: the model is better."""

    differences: tuple[float | None, ...]  # per prompt; None if a side has no picture
    claims: int = 1  # number of models compared with the base: all claims hold with 95 %
    margins: tuple[float, ...] = ()  # of the model's pictures

    @property
    def known(self) -> list[float]:
        return [difference for difference in self.differences if difference is not None]

    @property
    def mean(self) -> float | None:
        return mean(self.differences)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean; None with too few prompts."""
        return bootstrap_interval(self.known) if can_give_interval(self.known) else None

    @property
    def confidence(self) -> float:
        """Confidence of one claim, so that all of them hold with 95 % (Bonferroni)."""
        return 1 - 0.05 / self.claims

    @cached_property
    def claimed(self) -> tuple[float, float] | None:
        """The interval on which the verdict rests: wider with several claims."""
        if self.claims == 1 or self.interval is None:
            return self.interval
        return bootstrap_interval(self.known, confidence=self.confidence)

    @property
    def win_rate(self) -> float | None:
        return probability_of_superiority(self.known) if self.known else None

    @cached_property
    def is_no_following(self) -> bool:
        """Whether scores are higher although the pictures may fit any of the prompts."""
        higher = verdict(self.claimed) == "better"
        return higher and fit_any(self.margins, self.confidence)

    @property
    def verdict(self) -> str:
        return CANNOT_TELL if self.is_no_following else verdict(self.claimed)


@dataclass(frozen=True)
class AgainstBase:
    """Everything that is compared between a model and its base."""

    model: Result
    base: Result
    following: Comparison
    keeping: Comparison | None = None
    style: Comparison | None = None
    distances: dict[str, Distance] = field(default_factory=dict)  # differences: below 0 is nearer
    repeats: bool = False  # the model's pictures of different prompts are nearly the same
    judged: dict[str, dict[str, Distance]] = field(default_factory=dict)  # distances by each judge
    likeness: dict[str, Comparison] = field(default_factory=dict)  # to its subject

    @property
    def nearness(self) -> str:
        """Whether the model's pictures, as a set, are nearer to the training pictures."""
        return self.nearness_by(self.distances)

    def nearness_by(self, distances: Mapping[str, Distance]) -> str:
        """The same by differences in another encoder's features."""
        confidence = self.following.confidence
        found = nearness({name: each.at(confidence) for name, each in distances.items()})
        return CANNOT_TELL if self.repeats and found == "better" else found


def against(
    model: Result, base: Result, reference: ReferenceImages | None = None, claims: int = 1
) -> AgainstBase:
    """Compare a model with its base. Raises UserError if their pictures were made differently.
    `claims`: number of models compared with this base."""
    import numpy as np

    def claimed(comparison: Comparison) -> Comparison:
        return replace(comparison, claims=claims)

    following = claimed(compare(model.following, base.following))
    both = model.keeping and base.keeping and compare(model.keeping, base.keeping)
    keeping = claimed(both) if both else None
    if reference is None:
        return AgainstBase(model, base, following, keeping)
    pairs = pairs_of(model.following, base.following)
    prompts = np.array([number for number, _, _ in pairs])
    enough = min(len(np.unique(prompts)), len(reference.features)) >= MIN_SAMPLES
    likeness = {
        name: claimed(compare_styles(model.following, base.following, features.mean(0), judge))
        for name, judge, features in likeness_references(reference)
    }
    judges = [judge for judge in (CSD, DINOV2) if judge in reference.judged] if enough else []
    return AgainstBase(
        model,
        base,
        following,
        keeping,
        compare_styles(model.following, base.following, reference.style),
        _differences(pairs, reference.features) if enough else {},
        enough and repeats(stacked([ours for _, ours, _ in pairs]), prompts, reference.features),
        {judge: _differences(pairs, reference.judged[judge], judge) for judge in judges},
        likeness,
    )


def _differences(
    pairs: Sequence[Pair], reference: ndarray, judge: str | None = None
) -> dict[str, Distance]:
    """By kernel, how much farther the model's pictures are from the reference than the base's."""
    import numpy as np

    prompts = np.array([number for number, _, _ in pairs])
    ours = stacked([each for _, each, _ in pairs], judge)
    theirs = stacked([each for _, _, each in pairs], judge)
    if judge:
        ours, theirs, reference = unit(ours), unit(theirs), unit(reference)
    return {kernel: difference(kernel, ours, theirs, prompts, reference) for kernel in KERNELS}


def compare(model: ModelScores, base: ModelScores) -> Comparison:
    """Differences of the scores. Raises UserError if they were made differently."""
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
    """Differences of the cosines with reference pictures, given their mean features (float D)."""
    return Comparison(
        tuple(
            _difference(ours.styles(style, judge), theirs.styles(style, judge))
            for ours, theirs in zip(model.prompts, base.prompts, strict=True)
        )
    )


def pairs_of(model: ModelScores, base: ModelScores) -> list[Pair]:
    """Pictures of the same prompt and seed that are valid on both sides."""
    return [
        (number, ours, theirs)
        for number, pair in enumerate(zip(model.prompts, base.prompts, strict=True))
        for ours, theirs in zip(pair[0].images, pair[1].images, strict=True)
        if ours.problem is theirs.problem is None
    ]


def require_same_making(model: dict, base: dict) -> None:
    """Raise a UserError that names the first difference between two identities. A model for few
    steps, which draws with settings of its own, is compared with others all the same."""
    own = {"draws_with", *OF_DRAWING} if "draws_with" in model | base else set()
    for key in sorted((model.keys() | base.keys()) - own):
        ours, theirs = model.get(key), base.get(key)
        if ours != theirs:
            raise UserError(
                f"These scores cannot be compared: {key} is {ours} for the model and {theirs} "
                "for the base. Make both in the same way."
            )


def _difference(model: Sequence[float | None], base: Sequence[float | None]) -> float | None:
    """Mean difference over the seeds that are valid on both sides."""
    pairs = zip(model, base, strict=True)
    return mean([
        None if ours is None or theirs is None else ours - theirs for ours, theirs in pairs
    ])  # fmt: skip
