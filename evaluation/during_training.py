"""The verdict of metrics.py along the way: on what a training run draws at its looks.

Nothing is kept between looks but pictures: what the base model drew lies in the run's own folder,
so that a resumed run compares with it, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError
from data.images import read_again
from evaluation import reference_images, results
from evaluation.clip_score import Scorer
from evaluation.prompts import TRAINING_CAPTIONS, PromptSet
from evaluation.scores import ModelScores, PromptScore, Result
from evaluation.validation_prompts import COPIES, HELD_OUT, KEPT, VALIDATION, ValidationPrompts
from evaluation.verdict import sentences

if TYPE_CHECKING:
    from PIL import Image


NO_BASE = (
    "What the base model drew when the run began is not in its folder validation any more, so "
    "nothing is compared with it."
)


class ValidationVerdict:
    """What the scorer says of the pictures of each look, against those of the base model."""

    def __init__(
        self, scorer: Scorer, asked: Sequence[ValidationPrompts], folder: Path, base: str,
        looks: int, training: Callable[[], Sequence[reference_images.CaptionedImage]],
    ):  # fmt: skip
        """`folder`: where the pictures of looks lie; `looks`: how many there will be after the
        first, each of which makes claims; `training`: the training pictures."""
        self.scorer, self.asked, self.folder, self.looks = scorer, asked, folder, looks
        self.base_name, self._training = base, training
        self._eyes, self._base = results.ImageScorer(scorer), None

    def __call__(self, step: int, drawn: Sequence[tuple[str, object]]) -> dict:
        """What is to be logged of the pictures drawn after `step`, each with its place."""
        by_place = {
            asked.place: [picture for place, picture in drawn if place == asked.place]
            for asked in self.asked
        }
        name = f"step {step:,}" if step else self.base_name
        found = self._result(name, by_place, None if step == 0 else self._reference)
        if step == 0:
            self._base = found
        record = self._record(found)
        if step:
            base = self._base or self._base_again()
            record["verdict"] = self._verdict(found, base) if base else [NO_BASE]
        return record

    def _verdict(self, found: Result, base: Result) -> list[str]:
        against = results.against(found, base, self._reference, max(1, self.looks))
        return sentences([base, found], [against], None)

    def _record(self, found: Result) -> dict:
        shown = [prompt.score for prompt in found.following.prompts]
        record = {
            "clip_score": found.following.score, "clip_scores": shown,
            "kept_score": found.keeping.score if found.keeping else None,
        }  # fmt: skip
        if memory := found.memorisation:
            record["copies"] = {"copies": memory.copies, "pictures": len(memory.nearest)}
        return {name: value for name, value in record.items() if value is not None}

    @cached_property
    def _reference(self) -> reference_images.ReferenceImages | None:
        """The training pictures as the scorer sees them, where copies of them are sought."""
        if not any(asked.place == COPIES for asked in self.asked):
            return None
        return reference_images.reference("the training pictures", self._training(), self.scorer)

    def _result(self, name: str, pictures: dict[str, list], reference) -> Result:
        scores = {
            asked.place: tuple(self._scored(asked, pictures[asked.place])) for asked in self.asked
        }
        following = scores[VALIDATION] + scores.get(HELD_OUT, ())
        several = partial(self._scores, name)
        return results.result(
            several("validation prompts", following),
            several("kept", scores[KEPT]) if KEPT in scores else None,
            reference,
            recalling=several(TRAINING_CAPTIONS, scores[COPIES]) if COPIES in scores else None,
        )

    def _scores(self, name: str, kind: str, scored: tuple[PromptScore, ...]) -> ModelScores:
        made = PromptSet(kind, tuple(each.prompt for each in scored)).identity
        return ModelScores(name, None, self.scorer.identity | made, scored)

    def _scored(self, asked: ValidationPrompts, pictures: list) -> Iterator[PromptScore]:
        for number, prompt in enumerate(asked.prompts):
            several = pictures[number * asked.images : (number + 1) * asked.images]
            looks = (
                self._eyes.look(each.image, prompt, each.seed, each.problem) for each in several
            )
            yield PromptScore(prompt, tuple(looks))

    def _base_again(self) -> Result | None:
        """What the base model drew when the run began; None where it is not there any more."""
        found = {}
        for asked in self.asked:
            paths = [
                self.folder / asked.place / f"step-{0:06}-{number}.png"
                for number in range(len(asked.prompts) * asked.images)
            ]
            try:
                found[asked.place] = [
                    _EarlierImage(read_again(str(p), p.read_bytes)) for p in paths
                ]
            except UserError:
                return None
        self._base = self._result(self.base_name, found, None)
        return self._base


@dataclass(frozen=True)
class _EarlierImage:
    """A picture of an earlier look."""

    image: Image.Image
    seed: int | None = None
    problem: str | None = None
