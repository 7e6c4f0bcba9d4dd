"""Everything that scores a picture: the CLIP scorer, the judges, pixel colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from core.images import jpeg_of, perceptual_hash
from evaluation.attribute_binding import first_colour, swapped, without_second
from evaluation.image_registration import is_blank, reduced
from evaluation.scores import ScoredImage

if TYPE_CHECKING:
    from numpy import ndarray
    from PIL import Image

    from evaluation.clip_score import Scorer
    from evaluation.judges.encoder import ImageEncoder

THUMBNAIL = 192  # pixels of its longer side


@dataclass(frozen=True)
class ImageScorer:
    """Scores a picture by all models that were chosen."""

    scorer: Scorer
    judges: Mapping[str, ImageEncoder] = field(default_factory=dict)  # by name
    colour: Callable[[Image.Image], str] | None = None  # reads a creature's colour from the pixels

    @property
    def identity(self) -> dict:
        """What decides the scores: models, weights and libraries."""
        weights = {name: judge.sha256 for name, judge in self.judges.items()}
        return self.scorer.identity | ({"judges_sha256": weights} if weights else {})

    def score(
        self, image: Image.Image, prompt: str, seed: int | None = None, problem: str | None = None
    ) -> ScoredImage:
        """Score an RGB picture. One with a problem has no score; nor has a black one, which other
        safety checkers leave, or one of a single colour."""
        small = reduced(image)
        problem = problem or _problem_of(image, small)
        if problem:
            return ScoredImage(seed, None, problem, thumbnail=thumbnail(image))
        named, features = first_colour(prompt), self.scorer.features([image])[0]
        return ScoredImage(
            seed,
            self.scorer.score(image, prompt),
            bound=self._bound(features, prompt),
            features=features,
            text=self.scorer.text_features([prompt])[0],
            judged={name: judge.features([image])[0] for name, judge in self.judges.items()},
            coloured=self.colour(image) == named if self.colour and named else None,
            hash=perceptual_hash(image),
            reduced=small,
            thumbnail=thumbnail(image),
        )

    def _bound(self, features: ndarray, prompt: str) -> bool | None:
        """Whether a picture fits its prompt better than with swapped colours. None if the prompt
        has no two colours, or if the picture lacks the second thing: then neither fits better than
        the prompt without it."""
        exchanged = swapped(prompt)
        without = without_second(prompt) if exchanged else None
        if exchanged is None or not without:
            return None
        fits = self.scorer.text_features([prompt, exchanged, without]) @ features  # not clamped
        return bool(fits[0] > fits[1]) if max(fits[:2]) > fits[2] else None


def _problem_of(image: Image.Image, small: ndarray) -> str | None:
    if not image.getbbox():
        return "black"
    return "blank" if is_blank(small) else None


def thumbnail(image: Image.Image) -> bytes:
    """A small JPEG."""
    return jpeg_of(image, THUMBNAIL)
