"""From pictures that were looked at to what is known of a model, and of a model beside its base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from core.images import jpeg_of, perceptual_hash
from evaluation.attribute_binding import first_colour, swapped, without_second
from evaluation.fid import fid
from evaluation.image_registration import is_blank, reduced
from evaluation.judge_options import INCEPTION
from evaluation.judge_results import differences, judged, measures_of
from evaluation.memorisation import ImageSignatures, Memorisation, memorisation
from evaluation.mmd import KERNELS, MIN_ITEMS, difference, distance, repeats
from evaluation.reference_images import ReferenceImages
from evaluation.scores import (
    AgainstBase,
    ModelScores,
    Result,
    ScoredImage,
    compare,
    compare_styles,
    twins,
)

if TYPE_CHECKING:
    from numpy import ndarray
    from PIL import Image

    from evaluation.clip_score import Scorer
    from evaluation.judge import ImageEncoder

THUMBNAIL = 192  # pixels of its longer side


@dataclass(frozen=True)
class ImageScorer:
    """All that looks at a picture."""

    scorer: Scorer
    judges: Mapping[str, ImageEncoder] = field(default_factory=dict)  # networks of others, by name
    colour: Callable[[Image.Image], str] | None = None  # reads a creature's from the pixels

    @property
    def identity(self) -> dict:
        """What decides what they see: models, weights and libraries."""
        weights = {name: judge.sha256 for name, judge in self.judges.items()}
        return self.scorer.identity | ({"judges_sha256": weights} if weights else {})

    def look(
        self, image: Image.Image, prompt: str, seed: int | None = None, problem: str | None = None
    ) -> ScoredImage:
        """Look at a picture: RGB. One with a problem is not scored, nor one that is black all
        over, as safety checkers elsewhere leave it, nor one that shows a single colour."""
        problem = problem or (None if image.getbbox() else "black")
        small = reduced(image)
        if problem := problem or ("blank" if is_blank(small) else None):
            return ScoredImage(seed, None, problem, thumbnail=thumbnail(image))
        named, features = first_colour(prompt), self.scorer.features([image])[0]
        return ScoredImage(
            seed,
            self.scorer.score(image, prompt),
            bound=self._bound(features, prompt),
            features=features,
            text=self.scorer.text_features([prompt])[0],
            seen={name: judge.features([image])[0] for name, judge in self.judges.items()},
            coloured=self.colour(image) == named if self.colour and named else None,
            hash=perceptual_hash(image),
            reduced=small,
            thumbnail=thumbnail(image),
        )

    def _bound(self, features: ndarray, prompt: str) -> bool | None:
        """Whether a picture fits its prompt better than with the two colours swapped; None where
        there are no two, or where the picture does not show the second thing: then neither fits
        better than the prompt without it."""
        other = swapped(prompt)
        without = without_second(prompt) if other else None
        if not without:
            return None
        fits = self.scorer.text_features([prompt, other, without]) @ features  # not clamped
        return bool(fits[0] > fits[1]) if max(fits[:2]) > fits[2] else None


def thumbnail(image: Image.Image) -> bytes:
    """A small JPEG."""
    return jpeg_of(image, THUMBNAIL)


def result(
    following: ModelScores,
    keeping: ModelScores | None = None,
    reference: ReferenceImages | None = None,
    step: int | None = None,
    recalling: ModelScores | None = None,
) -> Result:
    """All that can be said of a model by itself. Without training pictures, `reference`, nothing
    of style, distances and memorisation; copies are sought in `recalling` too, its pictures of
    their captions."""
    if reference is None or not following.shown:
        return Result(following, keeping, step=step)
    import numpy as np

    features = np.stack([each.features for each in following.shown])
    prompts = np.array([
        number for number, prompt in enumerate(following.prompts)
        for each in prompt.shown if each.problem is None
    ])  # fmt: skip
    several = min(len(np.unique(prompts)), len(reference.features)) >= MIN_ITEMS
    return Result(
        following,
        keeping,
        style=following.style(reference.style),
        distances={
            name: distance(name, features, prompts, reference.features)
            for name in KERNELS
            if several
        },
        fid=_fid(following, reference) if several and INCEPTION in reference.seen else None,
        memorisation=_memorisation([following, recalling], reference),
        step=step,
        ceiling=reference.ceiling,
        told_apart=reference.told_apart,
        recalling=recalling,
        judged=judged(following, recalling, reference, prompts, several),
    )


def _fid(following: ModelScores, reference: ReferenceImages) -> float:
    import numpy as np

    seen = np.stack([each.seen[INCEPTION] for each in following.shown])
    return fid(seen, reference.seen[INCEPTION])


def _memorisation(
    sets: Sequence[ModelScores | None], reference: ReferenceImages
) -> Memorisation | None:
    """Of all pictures of these sets, in order; None where a single training picture cannot say."""
    import numpy as np

    if len(reference.features) < 2:
        return None
    shown = [each for scores in sets if scores for each in scores.shown]
    features, small = (
        np.stack([getattr(each, name) for each in shown]) for name in ("features", "reduced")
    )
    return memorisation(
        ImageSignatures(features, [each.hash for each in shown], small), reference.looks
    )


def against(
    model: Result, base: Result, reference: ReferenceImages | None = None, claims: int = 1
) -> AgainstBase:
    """A model beside its base, at the same prompts and seeds. Raises UserError where their pictures
    were made differently. `claims`: how many models are compared with this base."""
    import numpy as np

    following = replace(compare(model.following, base.following), claims=claims)
    keeping = None
    if model.keeping and base.keeping:
        keeping = replace(compare(model.keeping, base.keeping), claims=claims)
    if reference is None:
        return AgainstBase(model, base, following, keeping)
    pairs = twins(model.following, base.following)
    prompts = np.array([number for number, _, _ in pairs])
    several = min(len(np.unique(prompts)), len(reference.features)) >= MIN_ITEMS
    both = [np.stack([row[i].features for row in pairs]) for i in (1, 2)] if pairs else []
    likeness = {
        name: compare_styles(model.following, base.following, features.mean(0), judge)
        for name, judge, features in measures_of(reference)
    }
    return AgainstBase(
        model,
        base,
        following,
        keeping,
        compare_styles(model.following, base.following, reference.style),
        {name: difference(name, *both, prompts, reference.features) for name in KERNELS if several},
        several and repeats(both[0], prompts, reference.features),
        differences(pairs, reference) if several else {},
        {name: replace(each, claims=claims) for name, each in likeness.items()},
    )
