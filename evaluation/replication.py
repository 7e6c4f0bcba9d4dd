"""Replication by SSCD similarity (Somepalli et al. 2022, "Diffusion Art or Digital Forgery?").

It stands beside `memorisation`, which registers pictures on each other, and calls nothing
memorised: training pictures of one kind are above the published limit with each other, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.formatting import amount
from evaluation.features import cosines, nearest, stacked
from evaluation.judges import SSCD
from evaluation.memorisation import CLOSEST
from evaluation.metric import Metric, Sample

if TYPE_CHECKING:
    from numpy import ndarray

    from evaluation.results import Result

LIMIT = 0.5  # similarity above which Somepalli et al. speak of replication


@dataclass(frozen=True)
class Replication:
    """The SSCD similarity of pictures to their nearest training pictures."""

    nearest: tuple[
        tuple[int, float], ...
    ]  # per picture: number of the training picture, similarity
    among: tuple[float, ...]  # per training picture: similarity to its nearest other one

    @property
    def above(self) -> int:
        """Pictures above the published limit."""
        return sum(similarity > LIMIT for _, similarity in self.nearest)

    @property
    def above_among(self) -> int:
        """Training pictures above it with another one."""
        return sum(similarity > LIMIT for similarity in self.among)

    @property
    def closest(self) -> list[int]:
        """Numbers of the pictures by falling similarity."""
        return sorted(range(len(self.nearest)), key=lambda number: -self.nearest[number][1])


def replication(made: ndarray, reference: ndarray) -> Replication:
    """Compare pictures with training pictures by their features, float N,D and M,D of length 1."""
    numbers, highest = nearest(made, reference)
    pairs = zip(numbers.tolist(), highest.tolist(), strict=True)
    return Replication(tuple(pairs), tuple(_nearest_others(reference)))


def _nearest_others(reference: ndarray) -> Iterator[float]:
    """Similarity of each training picture to its nearest other one."""
    import numpy as np

    first = 0
    for block in cosines(reference, reference):
        rows = np.arange(len(block))
        block[rows, first + rows] = -1.0  # a picture is no copy of itself
        yield from block.max(1).tolist()
        first += len(block)


def _compute(sample: Sample) -> Replication | None:
    if SSCD not in sample.training.judged:
        return None
    images = [*sample.following.scored, *(sample.recalling.scored if sample.recalling else ())]
    return replication(stacked(images, SSCD), sample.training.judged[SSCD])


def _summary(found: Replication) -> dict:
    return {
        "limit": LIMIT,
        "above": found.above,
        "pictures": len(found.nearest),
        "training_pictures_above": found.above_among,
        "training_pictures": len(found.among),
    }


def _json(found: Replication) -> dict:
    closest = [
        {"picture": number, "training_picture": nearest, "similarity": similarity}
        for number in found.closest[:CLOSEST]
        for nearest, similarity in [found.nearest[number]]
    ]
    return _summary(found) | {"closest": closest}


def _sentence(result: Result, found: Replication) -> str:
    return (
        f"By SSCD {found.above} of {amount(len(found.nearest), 'picture')} of {result.model} are "
        f"more than {LIMIT} like a training picture, the published limit for a copy; of "
        f"{amount(len(found.among), 'training picture')} {found.above_among} are so with another "
        "one."
    )


REPLICATION = Metric(
    f"judges.{SSCD}",
    "SSCD",
    "pictures with an SSCD similarity above 0.5, published as the limit for copies",
    _compute,
    lambda found: f"{found.above} of {len(found.nearest)}",
    _json,
    _summary,
    _sentence,
)
