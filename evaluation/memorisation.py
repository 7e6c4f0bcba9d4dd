"""Did the model only learn its pictures by heart? Each picture's nearest one of the training set.

A copy is what a training picture becomes through a VAE, a JPEG, noise, a mirror, a crop, a shift,
other colours or some of another picture. Whatever is left of it, the edges lie where they lay: a
picture that, laid on a training picture (`registration`), is as like it as no other drawing of the
same hand is a copy. The limits are fixed, so that few training pictures do as well as many, unless
training pictures are liker than that to each other: then a copy must be liker still. Where many of
them lie on each other, as pictures from one template do, nothing tells a copy from a new one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from evaluation.image_registration import Alignment, Registration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy import ndarray

SAME = 0.99  # likeness of the same picture, saved twice
EXACT = 1e-4, 2  # feature distance and bits of the same picture, saved twice
NEAR = 0.01, 4  # of the same picture through a VAE or a JPEG; both
LIKE, OUTLINES = 0.945, 0.97  # correlations of a copy where it lies on its picture; either
TWICE = 0.985  # likeness of training pictures that repeat another one
REPEATED = 0.25  # of the training pictures, at most, that do so where copies can be told
NEIGHBOURS = 32  # training pictures whose own nearest ones are looked at
LUCK = 2  # of these that are as like another one as a copy, though all were drawn anew
SHARE = 0.004  # of new drawings that are called copies, at most (benchmarks/copies.py)
PART = 1024  # pictures compared at once


@dataclass(frozen=True)
class ImageSignatures:
    """Pictures as they are compared, a row each."""

    features: ndarray  # float32 N,D, of length 1
    hashes: Sequence[int]  # perceptual, 64 bits
    reduced: ndarray  # uint8 N,64,64,3


@dataclass(frozen=True)
class NearestImage:
    """A picture's nearest one of the training set."""

    number: int  # of the training picture, in the order that it was given
    distance: float  # 1 - cosine of the features, 0..2
    bits: int  # of the perceptual hashes of these two that differ, 0..64
    copy: bool
    likeness: float = 0.0  # correlation of the gradients where both lie on each other, -1..1
    outlines: float = 0.0  # of the directions of edges, whatever the colours, -1..1

    @property
    def exact(self) -> bool:
        """Whether it is the training picture itself."""
        alike = self.likeness >= SAME
        return alike and self.distance <= EXACT[0] and self.bits <= EXACT[1]


@dataclass(frozen=True)
class Memorisation:
    """Of every picture its nearest training picture; and what is near."""

    nearest: tuple[NearestImage, ...]
    near_distance: float = NEAR[0]
    near_bits: int = NEAR[1]
    near_likeness: float = LIKE
    near_outlines: float = OUTLINES
    share: float = SHARE  # of pictures that copy nothing and are called copies all the same
    repeated: float = 0.0  # share of the training pictures that repeat another one, 0..1

    @property
    def can_be_told(self) -> bool:
        """Whether a copy differs from a new drawing of what is drawn again and again."""
        return self.repeated <= REPEATED

    @property
    def copies(self) -> int:
        return sum(each.copy for each in self.nearest)

    @property
    def exact(self) -> int:
        return sum(each.exact for each in self.nearest)

    @property
    def by_chance(self) -> float:
        """How likely so many copies are, 0..1, where nothing is copied: the exact binomial test
        against `share`. A training picture itself never comes by chance."""
        from scipy.stats import binom

        if self.exact:
            return 0.0
        return float(binom.sf(self.copies - 1, len(self.nearest), self.share))

    @property
    def closest(self) -> list[int]:
        """Numbers of the pictures, those nearest to a training picture first."""
        return sorted(range(len(self.nearest)), key=self._nearness)

    def _nearness(self, number: int) -> tuple:
        near = self.nearest[number]
        return not near.copy, -near.likeness, near.distance


def memorisation(looks: ImageSignatures, training: ImageSignatures) -> Memorisation:
    """Compare pictures with training pictures, of which there are at least 2."""
    if len(training.features) < 2:
        raise ValueError("two training pictures are needed to know what is near")
    registration = Registration(training.reduced)
    likeness, outlines, share, repeated = _limits(training, registration)
    places = _nearest(looks.features, training.features)
    near = NEAR if share == SHARE else EXACT
    found = []
    for number, laid in enumerate(registration.laid(looks.reduced, places)):
        nearest = [_compared(looks, number, training, each) for each in laid]
        copies = [
            each for each in nearest
            if each.exact or (share == SHARE and each.distance <= NEAR[0] and each.bits <= NEAR[1])
            or each.likeness >= likeness or each.outlines >= outlines
        ]  # fmt: skip
        found.append(replace(copies[0], copy=True) if copies else nearest[0])
    return Memorisation(tuple(found), *near, likeness, outlines, share, repeated)


def _compared(
    looks: ImageSignatures, number: int, training: ImageSignatures, laid: Alignment
) -> NearestImage:
    cosine = float(looks.features[number] @ training.features[laid.number])
    bits = (looks.hashes[number] ^ training.hashes[laid.number]).bit_count()
    distance = min(max(1.0 - cosine, 0.0), 2.0)
    return NearestImage(laid.number, distance, bits, False, laid.likeness, laid.outlines)


def _limits(
    training: ImageSignatures, registration: Registration
) -> tuple[float, float, float, float]:
    """From which likeness and outlines on a picture is a copy, and the share of new ones that are
    called so: more where training pictures are liker to each other than the fixed limits say. Then
    the share of training pictures that repeat another one; the same picture saved twice does not
    count."""
    import numpy as np

    count = len(training.features)
    chosen = np.unique(np.linspace(0, count - 1, min(count, NEIGHBOURS)).round().astype(int))
    around = registration.laid(training.reduced[chosen], chosen, apart=True)
    likest = []
    for number, several in zip(chosen, around, strict=True):
        compared = (_compared(training, number, training, each) for each in several)
        likest += [each for each in compared if not each.exact][:1]
    distinct = [each for each in likest if max(each.likeness, each.outlines) < TWICE]
    repeated = 1 - len(distinct) / len(likest) if likest else 0.0
    if sum(each.likeness >= LIKE or each.outlines >= OUTLINES for each in distinct) <= LUCK:
        return LIKE, OUTLINES, SHARE, repeated
    likeness = max(LIKE, *(each.likeness for each in distinct))
    outlines = max(OUTLINES, *(each.outlines for each in distinct))
    # The next picture beats the likest of n with a chance of 1 in n + 1, by either measure.
    return likeness, outlines, 2 / (len(chosen) + 1), repeated


def _nearest(rows: ndarray, training: ndarray) -> ndarray:
    """Of each row the number of the nearest training picture by its features."""
    import numpy as np

    parts = range(0, len(rows), PART)
    return np.concatenate([(rows[i : i + PART] @ training.T).argmax(1) for i in parts])
