"""Did the model only learn its pictures by heart? Each picture's nearest one of the training set.

Near is what training pictures are to each other: a picture counts as a copy where it is nearer to
a training picture than 99 % of those are to their nearest neighbour, in the scorer's features and
by perceptual hash both. Fewer than 1 % of pictures that copy nothing are. Of few training pictures
nobody knows that share: then only the same picture counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import ndarray
    from PIL import Image

SHARE = 0.01  # of training pictures that are as near to another one
EXACT = 1e-4, 2  # feature distance and bits of the same picture, saved twice
FEW = 100  # training pictures: below, the nearest 1 % of them are less than one
PART = 1024  # pictures compared at once


@dataclass(frozen=True)
class Nearest:
    """A picture's nearest one of the training set."""

    number: int  # of the training picture, in the order that it was given
    distance: float  # 1 - cosine of the features, 0..2
    bits: int  # of the perceptual hashes of these two that differ, 0..64
    copy: bool

    @property
    def exact(self) -> bool:
        """Whether it is the training picture itself."""
        return self.distance <= EXACT[0] and self.bits <= EXACT[1]


@dataclass(frozen=True)
class Memorisation:
    """Of every picture its nearest training picture; and what is near."""

    nearest: tuple[Nearest, ...]
    near_distance: float
    near_bits: int

    @property
    def copies(self) -> int:
        return sum(each.copy for each in self.nearest)

    @property
    def exact(self) -> int:
        return sum(each.exact for each in self.nearest)

    @property
    def by_chance(self) -> float:
        """How likely so many copies are, 0..1, where nothing is copied: with SHARE for each."""
        from scipy.stats import binom

        return float(binom.sf(self.copies - 1, len(self.nearest), SHARE))

    @property
    def closest(self) -> list[int]:
        """Numbers of the pictures, those nearest to a training picture first."""
        key = lambda i: (not self.nearest[i].copy, self.nearest[i].distance)  # noqa: E731
        return sorted(range(len(self.nearest)), key=key)


def perceptual_hash(image: Image.Image) -> int:
    """64 bits of the low frequencies of a picture: few of them change with its size or quality."""
    import imagehash

    return int(str(imagehash.phash(image)), 16)


def memorisation(
    features: ndarray, hashes: list[int], training: ndarray, training_hashes: list[int]
) -> Memorisation:
    """Compare pictures, by features float N,D of length 1 and their hashes, with training pictures
    M,D, of which there are at least 2."""
    import numpy as np

    if len(training) < 2:
        raise ValueError("two training pictures are needed to know what is near")
    own, near = _nearest(training, training, itself=False)
    own_bits = [_bits(training_hashes[i], training_hashes[place]) for i, place in enumerate(own)]
    near_distance, near_bits = EXACT
    if len(training) >= FEW:
        near_distance = max(float(np.quantile(near, SHARE)), EXACT[0])
        near_bits = max(int(np.quantile(own_bits, SHARE, method="lower")), EXACT[1])
    found = []
    for mine, place, distance in zip(hashes, *_nearest(features, training), strict=True):
        bits = _bits(mine, training_hashes[place])
        copy = distance <= near_distance and bits <= near_bits
        found.append(Nearest(int(place), float(distance), bits, bool(copy)))
    return Memorisation(tuple(found), near_distance, near_bits)


def _nearest(rows: ndarray, training: ndarray, itself: bool = True) -> tuple[ndarray, ndarray]:
    """Of each row the number of the nearest training picture, and 1 - cosine to it; where not
    `itself`, rows are the training pictures, and each one's nearest is another one."""
    import numpy as np

    places, distances = [], []
    for first in range(0, len(rows), PART):
        apart = 1.0 - rows[first : first + PART] @ training.T
        if not itself:
            inside = np.arange(len(apart))
            apart[inside, first + inside] = np.inf
        places.append(apart.argmin(1))
        distances.append(np.clip(apart.min(1), 0.0, 2.0))
    return np.concatenate(places), np.concatenate(distances)


def _bits(one: int, other: int) -> int:
    return (one ^ other).bit_count()
