"""Scores that know how they were made, and the comparison of two models by them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from errors import UserError
from scoring.statistics import MIN_PROMPTS, bootstrap_interval, verdict, win_rate


@dataclass(frozen=True)
class PromptScore:
    """The scores of the pictures drawn for one prompt."""

    prompt: str
    seeds: tuple[int, ...]
    pictures: tuple[float | None, ...]  # 0..100, one a seed; None where there is a problem
    problems: tuple[str | None, ...]  # why a picture was left out: "flagged", "black", ...

    @property
    def score(self) -> float | None:
        """Mean over the pictures that count; None where none does."""
        return mean(self.pictures)


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


@dataclass(frozen=True)
class Comparison:
    """A model against its base at the same prompts and seeds. Above zero: the model is better."""

    differences: tuple[float | None, ...]  # one a prompt; None where a side has no picture

    @property
    def known(self) -> list[float]:
        return [difference for difference in self.differences if difference is not None]

    @property
    def mean(self) -> float | None:
        return mean(self.differences)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Where the mean lies with 95 % confidence; None with too few prompts to say."""
        return bootstrap_interval(self.known) if len(self.known) >= MIN_PROMPTS else None

    @property
    def win_rate(self) -> float | None:
        return win_rate(self.known) if self.known else None

    @property
    def verdict(self) -> str:
        return verdict(self.interval)


def compare(model: ModelScores, base: ModelScores) -> Comparison:
    """Paired differences, model minus base. Raises UserError where they were made differently."""
    require_same_making(model.identity, base.identity)
    return Comparison(tuple(map(_difference, model.prompts, base.prompts)))


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


def _difference(model: PromptScore, base: PromptScore) -> float | None:
    """Over the seeds that both sides drew: a picture is compared with its twin alone."""
    pairs = zip(model.pictures, base.pictures, strict=True)
    return mean([None if None in pair else pair[0] - pair[1] for pair in pairs])
