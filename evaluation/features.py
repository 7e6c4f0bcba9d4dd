"""Features of pictures as arrays: stacked, normalised, and compared block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import ndarray

    from evaluation.scores import ScoredImage

BLOCK = 1024  # rows compared at once, which bounds memory


def stacked(images: Sequence[ScoredImage], judge: str | None = None) -> ndarray:
    """Features of scored images, float32 N,D, by the scorer or by a judge."""
    import numpy as np

    rows = [each.judged[judge] if judge else each.features for each in images]
    return np.stack([row for row in rows if row is not None])


def unit(features: ndarray) -> ndarray:
    """Rows scaled to length 1."""
    import numpy as np

    return features / np.linalg.norm(features, axis=1, keepdims=True)


def cosines(rows: ndarray, others: ndarray) -> Iterator[ndarray]:
    """Cosines of rows of length 1 (N,D) with others (M,D), in blocks of at most BLOCK,M."""
    for first in range(0, len(rows), BLOCK):
        yield rows[first : first + BLOCK] @ others.T


def nearest(rows: ndarray, others: ndarray) -> tuple[ndarray, ndarray]:
    """Of each row, the number of the nearest other one and their cosine."""
    import numpy as np

    blocks = [(each.argmax(1), each.max(1)) for each in cosines(rows, others)]
    numbers, highest = zip(*blocks, strict=True)
    return np.concatenate(numbers), np.concatenate(highest)
