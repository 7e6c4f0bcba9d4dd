"""The verdict of metrics.py during training: on the validation pictures of a run.

The only state between validations are pictures: those of the base model are in the run's folder, so
that a resumed run compares with them, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from data.images import read_again
from evaluation.clip_score import Scorer
from evaluation.comparison import against
from evaluation.image_scorer import ImageScorer
from evaluation.memorisation import MEMORISATION
from evaluation.prompts import TRAINING_CAPTIONS, PromptSet
from evaluation.reference_images import CaptionedImage, ReferenceImages, reference
from evaluation.results import Result, result
from evaluation.scores import ModelScores, PromptScore
from evaluation.validation_prompts import COPIES, HELD_OUT, KEPT, VALIDATION, ValidationPrompts
from evaluation.verdict import sentences

if TYPE_CHECKING:
    from PIL import Image


NO_BASE = (
    "What the base model drew when the run began is not in its folder validation any more, so "
    "nothing is compared with it."
)


class ValidationVerdict:
    """Scores the pictures of each validation, and compares them with those of the base model."""

    def __init__(
        self, scorer: Scorer, prompts: Sequence[ValidationPrompts], folder: Path, base: str,
        validations: int, training: Callable[[], Sequence[CaptionedImage]],
    ):  # fmt: skip
        """`folder`: of validation pictures; `validations`: their number after the first, each of
        which makes claims; `training`: the training pictures."""
        self.scorer, self.prompts, self.folder = scorer, prompts, folder
        self.base_name, self.validations, self._training = base, validations, training
        self._image_scorer = ImageScorer(scorer)
        self._base: Result | None = None

    def __call__(self, step: int, drawn: Sequence[tuple[str, Any]]) -> dict:
        """What to log of the pictures drawn after `step`, each with its place."""
        by_place = {
            prompts.place: [picture for place, picture in drawn if place == prompts.place]
            for prompts in self.prompts
        }
        name = f"step {step:,}" if step else self.base_name
        found = self._result(name, by_place, None if step == 0 else self._reference)
        if step == 0:
            self._base = found
        record = self._record(found)
        if step:
            base = self._base or self._saved_base()
            record["verdict"] = self._verdict(found, base) if base else [NO_BASE]
        return record

    def _verdict(self, found: Result, base: Result) -> list[str]:
        comparison = against(found, base, self._reference, max(1, self.validations))
        return sentences([base, found], [comparison], None)

    def _record(self, found: Result) -> dict:
        scores = [prompt.score for prompt in found.following.prompts]
        record: dict[str, Any] = {
            "clip_score": found.following.score, "clip_scores": scores,
            "kept_score": found.keeping.score if found.keeping else None,
        }  # fmt: skip
        if memory := found.get(MEMORISATION):
            record["copies"] = {"copies": memory.copies, "pictures": len(memory.nearest)}
        return {name: value for name, value in record.items() if value is not None}

    @cached_property
    def _reference(self) -> ReferenceImages | None:
        """The encoded training pictures, if copies of them are searched."""
        if not any(prompts.place == COPIES for prompts in self.prompts):
            return None
        return reference("the training pictures", self._training(), self.scorer)

    def _result(
        self, name: str, pictures: dict[str, list], training: ReferenceImages | None
    ) -> Result:
        scores = {
            prompts.place: tuple(self._scored(prompts, pictures[prompts.place]))
            for prompts in self.prompts
        }
        following = scores[VALIDATION] + scores.get(HELD_OUT, ())
        model_scores = partial(self._scores, name)
        return result(
            model_scores("validation prompts", following),
            model_scores("kept", scores[KEPT]) if KEPT in scores else None,
            training,
            recalling=model_scores(TRAINING_CAPTIONS, scores[COPIES]) if COPIES in scores else None,
        )

    def _scores(self, name: str, kind: str, scored: tuple[PromptScore, ...]) -> ModelScores:
        made = PromptSet(kind, tuple(each.prompt for each in scored)).identity
        return ModelScores(name, None, self.scorer.identity | made, scored)

    def _scored(self, prompts: ValidationPrompts, pictures: list) -> Iterator[PromptScore]:
        for number, prompt in enumerate(prompts.prompts):
            drawn = pictures[number * prompts.images : (number + 1) * prompts.images]
            scored = (
                self._image_scorer.score(each.image, prompt, each.seed, each.problem)
                for each in drawn
            )
            yield PromptScore(prompt, tuple(scored))

    def _saved_base(self) -> Result | None:
        """The base model's pictures from the start of the run; None if they were deleted."""
        found: dict[str, list] = {}
        for prompts in self.prompts:
            paths = [
                self.folder / prompts.place / f"step-{0:06}-{number}.png"
                for number in range(len(prompts.prompts) * prompts.images)
            ]
            try:
                found[prompts.place] = [
                    _EarlierImage(read_again(str(p), p.read_bytes)) for p in paths
                ]
            except UserError:
                return None
        self._base = self._result(self.base_name, found, None)
        return self._base


@dataclass(frozen=True)
class _EarlierImage:
    """A saved validation picture."""

    image: Image.Image
    seed: int | None = None
    problem: str | None = None
