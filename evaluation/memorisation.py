"""Memorisation: whether a model's pictures are copies of training pictures.

A copy is what a VAE, JPEG compression, noise, a mirror, a crop, a shift, other colours or a blend
with another picture make of a training picture. Its edges stay where they were: a picture that,
registered on a training picture, is more similar to it than different drawings of one hand are, is
a copy. The limits are fixed, so that a small training set works as well as a large one, and rise
where training pictures are even more similar to each other. Where many of them coincide, as
pictures from one template do, a copy cannot be told from a new picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from core.formatting import amount
from evaluation.features import nearest, stacked
from evaluation.image_registration import Alignment, Registration
from evaluation.metric import Metric, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy import ndarray

    from evaluation.results import Result
    from evaluation.scores import ScoredImage

SAME = 0.99  # likeness of the same picture, saved twice
EXACT = 1e-4, 2  # feature distance and hash bits of the same picture, saved twice
NEAR = 0.01, 4  # of the same picture after a VAE or JPEG; both
LIKE, OUTLINES = 0.945, 0.97  # correlations of a registered copy; either
TWICE = 0.985  # likeness of training pictures that repeat another one
REPEATED = 0.25  # largest share of such training pictures with which copies can be told
NEIGHBOURS = 32  # training pictures whose own nearest neighbours set the limits
LUCK = 2  # of them may be as similar to another one as a copy
SHARE = 0.004  # largest share of new drawings that are called copies (benchmarks/copies.py)
UNLIKELY = 0.001  # probability below which so many copies are no chance
CLOSEST = 20  # nearest pairs that JSON names


@dataclass(frozen=True)
class ImageSignatures:
    """What pictures are compared by, a row each."""

    features: ndarray  # float32 N,D, of length 1
    hashes: Sequence[int]  # perceptual, 64 bits
    reduced: ndarray  # uint8 N,64,64,3


@dataclass(frozen=True)
class NearestImage:
    """The training picture nearest to a picture."""

    number: int  # of the training picture
    distance: float  # 1 - cosine of the features, 0..2
    bits: int  # Hamming distance of the perceptual hashes, 0..64
    copy: bool
    likeness: float = 0.0  # correlation of the registered pictures' gradients, -1..1
    outlines: float = 0.0  # of their edge directions, whatever the colours, -1..1

    @property
    def exact(self) -> bool:
        """Whether the picture is the training picture itself."""
        is_same = self.likeness >= SAME
        return is_same and self.distance <= EXACT[0] and self.bits <= EXACT[1]


@dataclass(frozen=True)
class Memorisation:
    """The training picture nearest to each picture, and the limits of a copy."""

    nearest: tuple[NearestImage, ...]
    near_distance: float = NEAR[0]
    near_bits: int = NEAR[1]
    near_likeness: float = LIKE
    near_outlines: float = OUTLINES
    share: float = SHARE  # false positive rate, at most
    repeated: float = 0.0  # share of the training pictures that repeat another one, 0..1

    @property
    def can_be_told(self) -> bool:
        """Whether a copy differs from a new picture of the same kind."""
        return self.repeated <= REPEATED

    @property
    def copies(self) -> int:
        return sum(each.copy for each in self.nearest)

    @property
    def exact(self) -> int:
        return sum(each.exact for each in self.nearest)

    @property
    def by_chance(self) -> float:
        """p-value of the exact binomial test that no more are copies than `share`; 0 if a training
        picture itself is among them."""
        from scipy.stats import binom

        if self.exact:
            return 0.0
        return float(binom.sf(self.copies - 1, len(self.nearest), self.share))

    @property
    def closest(self) -> list[int]:
        """Numbers of the pictures by rising distance to a training picture."""
        return sorted(range(len(self.nearest)), key=self._nearness)

    def _nearness(self, number: int) -> tuple:
        near = self.nearest[number]
        return not near.copy, -near.likeness, near.distance


def memorisation(pictures: ImageSignatures, training: ImageSignatures) -> Memorisation:
    """Compare pictures with at least 2 training pictures."""
    if len(training.features) < 2:
        raise ValueError("two training pictures are needed to know what is near")
    registration = Registration(training.reduced)
    likeness, outlines, share, repeated = _limits(training, registration)
    by_features, _ = nearest(pictures.features, training.features)
    near = NEAR if share == SHARE else EXACT
    found = []
    for number, aligned in enumerate(registration.aligned(pictures.reduced, by_features)):
        candidates = [_compared(pictures, number, training, each) for each in aligned]
        copies = [
            each for each in candidates
            if each.exact or (share == SHARE and each.distance <= NEAR[0] and each.bits <= NEAR[1])
            or each.likeness >= likeness or each.outlines >= outlines
        ]  # fmt: skip
        found.append(replace(copies[0], copy=True) if copies else candidates[0])
    return Memorisation(tuple(found), *near, likeness, outlines, share, repeated)


def _compared(
    pictures: ImageSignatures, number: int, training: ImageSignatures, aligned: Alignment
) -> NearestImage:
    cosine = float(pictures.features[number] @ training.features[aligned.number])
    bits = (pictures.hashes[number] ^ training.hashes[aligned.number]).bit_count()
    distance = min(max(1.0 - cosine, 0.0), 2.0)
    return NearestImage(aligned.number, distance, bits, False, aligned.likeness, aligned.outlines)


def _limits(
    training: ImageSignatures, registration: Registration
) -> tuple[float, float, float, float]:
    """Likeness and outlines from which a picture is a copy, and the false positive rate: all are
    higher where training pictures are more similar to each other than the fixed limits. Then the
    share of training pictures that repeat another one, not counting exact duplicates."""
    import numpy as np

    count = len(training.features)
    chosen = np.unique(np.linspace(0, count - 1, min(count, NEIGHBOURS)).round().astype(int))
    neighbours = registration.aligned(training.reduced[chosen], chosen, exclude=True)
    most_similar = []
    for number, aligned in zip(chosen, neighbours, strict=True):
        compared = (_compared(training, number, training, each) for each in aligned)
        most_similar += [each for each in compared if not each.exact][:1]
    distinct = [each for each in most_similar if max(each.likeness, each.outlines) < TWICE]
    repeated = 1 - len(distinct) / len(most_similar) if most_similar else 0.0
    if sum(each.likeness >= LIKE or each.outlines >= OUTLINES for each in distinct) <= LUCK:
        return LIKE, OUTLINES, SHARE, repeated
    likeness = max(LIKE, *(each.likeness for each in distinct))
    outlines = max(OUTLINES, *(each.outlines for each in distinct))
    # A new picture exceeds the maximum of n with probability 1 / (n + 1), by either measure.
    return likeness, outlines, 2 / (len(chosen) + 1), repeated


def _compute(sample: Sample) -> Memorisation | None:
    """All pictures, those of training captions too; None with a single training picture."""
    if len(sample.training.features) < 2:
        return None
    sets = (sample.following, sample.recalling)
    images = [each for scores in sets if scores for each in scores.scored]
    return memorisation(signatures_of(images), sample.training.signatures)


def signatures_of(images: Sequence[ScoredImage]) -> ImageSignatures:
    import numpy as np

    hashes = [each.hash for each in images if each.hash is not None]
    reduced = np.stack([each.reduced for each in images if each.reduced is not None])
    return ImageSignatures(stacked(images), hashes, reduced)


def _summary(found: Memorisation) -> dict:
    return {"copies": found.copies, "pictures": len(found.nearest)}


def _json(found: Memorisation) -> dict:
    closest = [
        {
            "picture": number,
            "training_picture": found.nearest[number].number,
            "distance": found.nearest[number].distance,
            "bits": found.nearest[number].bits,
            "likeness": found.nearest[number].likeness,
            "outlines": found.nearest[number].outlines,
            "copy": found.nearest[number].copy,
        }
        for number in found.closest[:CLOSEST]
    ]
    return {
        **_summary(found),
        "near_distance": found.near_distance,
        "near_bits": found.near_bits,
        "near_likeness": found.near_likeness,
        "near_outlines": found.near_outlines,
        "by_chance": found.by_chance,
        "repeated": found.repeated,
        "closest": closest,
    }


def _sentence(result: Result, found: Memorisation) -> str:
    count = f"{amount(len(found.nearest), 'picture')} of {result.model}"
    if result.recalling:
        recalled = amount(len(result.recalling.scored), "picture")
        count += f" ({recalled} of training captions, where copies are likeliest)"
    exact = f" {found.exact} of them are training pictures themselves." if found.exact else ""
    if not found.can_be_told:
        return (
            f"Whether {count} are copies cannot be told: {found.repeated:.0%} of the training "
            f"pictures repeat another one, as a new picture may.{exact} Look at the closest pairs."
        )
    if not found.copies:
        return f"None of {count} looks like a copy of a training picture."
    copied = f"{found.copies} of {count} look like copies of training pictures"
    if found.by_chance < UNLIKELY:
        advice = " Train for fewer steps, or with more pictures."
        return f"{copied}: it has memorised.{exact}{advice}"
    return f"{copied}, which is no more than chance. Look at the closest pairs."


MEMORISATION = Metric(
    "memorisation",
    "copies",
    "pictures that lie on a training picture, also mirrored, moved or in other colours",
    _compute,
    lambda found: f"{found.copies} of {len(found.nearest)}",
    _json,
    _summary,
    _sentence,
)
