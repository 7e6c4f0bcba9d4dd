"""Captioned pictures that are there already: those that a model learned from, those kept out of
it, and pictures that were drawn elsewhere and only want a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError
from core.images import perceptual_hash
from data.captions import texts_of
from data.images import read_again
from data.index import RowIndex
from data.rows import Row
from data.source import ReadOptions
from data.source_detection import Source, open_source, pictures_alone
from data.validate import examine
from evaluation.image_registration import reduced
from evaluation.memorisation import ImageSignatures

if TYPE_CHECKING:
    from numpy import ndarray
    from PIL import Image

    from evaluation.clip_score import Scorer
    from evaluation.judge import ImageEncoder

MOST = 5_000  # training pictures that are compared; evenly chosen where there are more
CEILING = 256  # of them that are scored for their own captions
PART = 64  # pictures that the scorer sees at once


@dataclass(frozen=True)
class CaptionedImage:
    """A picture, opened when it is wanted."""

    name: str
    caption: str
    image: Callable[[], Image.Image]  # RGB, upright


@dataclass(frozen=True)
class ReferenceImages:
    """Training pictures as the scorer sees them."""

    name: str
    pictures: tuple[CaptionedImage, ...]
    features: ndarray  # float32 M,D, of length 1
    hashes: tuple[int, ...]
    reduced: ndarray  # uint8 M,64,64,3
    ceiling: float | None = None  # mean CLIP score of some of them for their own captions, 0..100
    told_apart: float | None = None  # how often their own caption fits better than another, 0..1
    seen: dict[str, ndarray] = field(default_factory=dict)  # float32 M,D of each judge
    is_subject: bool = False  # whether all are of one thing that the model was taught (DreamBooth)

    @property
    def looks(self) -> ImageSignatures:
        """What copies are sought by."""
        return ImageSignatures(self.features, self.hashes, self.reduced)

    @cached_property
    def style(self) -> ndarray:
        """Their mean features, float32 D: its product with a picture's is their mean cosine."""
        return self.features.mean(0)


def read_pictures(
    place: str, *, held_out: float = 0.0, prompt: str | None = None
) -> tuple[list[CaptionedImage], list[CaptionedImage]]:
    """The pictures of a data set that are for training, and those that are not.

    `held_out`: share that a training run kept out by itself; `prompt`: of pictures without
    captions. Raises UserError where there is no data set, or a row of it is faulty.
    """
    source = pictures_alone(Path(place), prompt) if prompt else open_source(place, _READING)
    rows = list(source.rows())
    if not rows:
        raise UserError(f"{place} holds no captioned picture. Give a folder with metadata.jsonl.")
    splits = _splits(source, rows, place, held_out)
    parts = ([], [])
    for row, split in zip(rows, splits, strict=True):
        parts[split != "train"].append(
            CaptionedImage(row.picture or row.where, texts_of(row.caption)[0], partial(_image, row))
        )
    return parts


def reference(
    name: str,
    pictures: Sequence[CaptionedImage],
    scorer: Scorer,
    judges: Mapping[str, ImageEncoder] | None = None,
    is_subject: bool = False,
) -> ReferenceImages:
    """Have the scorer look at training pictures, and judges: at all, or MOST of them."""
    import numpy as np

    chosen = np.linspace(0, len(pictures) - 1, min(len(pictures), MOST)).round().astype(int)
    kept = [pictures[i] for i in chosen]
    features, hashes, small = [], [], []
    seen = {name: [] for name in judges or ()}
    for first in range(0, len(kept), PART):
        images = [picture.image() for picture in kept[first : first + PART]]
        features.append(scorer.features(images))
        hashes += map(perceptual_hash, images)
        small += map(reduced, images)
        for judge in seen:
            seen[judge].append(judges[judge].features(images))
    seen = {judge: np.concatenate(each) for judge, each in seen.items()}
    features = np.concatenate(features)
    looks = features, tuple(hashes), np.stack(small)
    truth = _truth(kept, features, scorer)
    return ReferenceImages(name, tuple(kept), *looks, *truth, seen, is_subject)


def _truth(
    pictures: Sequence[CaptionedImage], features: ndarray, scorer: Scorer
) -> tuple[float, float | None]:
    """Of real pictures, some, with their captions: the mean CLIP score, 0..100, which is as good
    as can be asked for; and how often a picture fits its own caption better than one of other
    words, 0..1, where 0.5 is guessing. None where all captions are the same."""
    import numpy as np

    count = len(pictures)
    chosen = np.linspace(0, count - 1, min(count, CEILING)).round().astype(int)
    captions = np.array([pictures[i].caption for i in chosen], dtype=object)
    texts = np.concatenate([
        scorer.text_features(captions[first : first + PART].tolist())
        for first in range(0, len(chosen), PART)
    ])  # fmt: skip
    fits = features[chosen] @ texts.T  # picture, caption
    own, others = np.diag(fits), captions[:, None] != captions[None]
    wins = (own[:, None] > fits) + 0.5 * (own[:, None] == fits)
    told_apart = float(wins[others].mean()) if others.any() else None
    return float((100 * own).clip(0).mean()), told_apart


_READING = ReadOptions(strict=True)


def _image(row: Row) -> Image.Image:
    return read_again(row.picture or row.where, row.content)


def _splits(source: Source, rows: list[Row], place: str, held_out: float) -> list[str]:
    """Of each row, "train" or not, as training would have it."""
    with RowIndex() as index:
        examine(source, index, held_out=held_out)
        for fault in index.findings(True, 1):
            raise UserError(f"{place}: {fault}; prepare_dataset.py --check lists all faults.")
        splits = dict(index.ask("SELECT row, split FROM rows"))
    return [splits[number] for number in range(1, len(rows) + 1)]
