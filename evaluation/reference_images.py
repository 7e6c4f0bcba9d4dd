"""Captioned pictures on disk: the training pictures of a model, the held-out ones, and pictures
drawn elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError
from core.images import perceptual_hash
from data.images import read_again
from data.index import RowIndex
from data.rows import Row
from data.source import ReadOptions, Source
from data.source_detection import open_source, pictures_alone
from data.validate import examine, texts_of
from evaluation.image_registration import reduced
from evaluation.memorisation import ImageSignatures

if TYPE_CHECKING:
    from numpy import ndarray
    from PIL import Image

    from evaluation.clip_score import Scorer
    from evaluation.judges.encoder import ImageEncoder

MAX_PICTURES = 5_000  # training pictures, evenly chosen from more
MAX_CAPTIONED = 256  # of them that are scored with their own captions
BATCH = 64  # pictures per call of the scorer


@dataclass(frozen=True)
class CaptionedImage:
    """A picture with its caption, decoded on demand."""

    name: str
    caption: str
    image: Callable[[], Image.Image]  # RGB, upright


@dataclass(frozen=True)
class ReferenceImages:
    """Training pictures with their features."""

    name: str
    pictures: tuple[CaptionedImage, ...]
    features: ndarray  # float32 M,D, of length 1, by the scorer
    hashes: tuple[int, ...]
    reduced: ndarray  # uint8 M,64,64,3
    ceiling: float | None = None  # mean CLIP score of some with their own captions, 0..100
    caption_accuracy: float | None = None  # how often their own caption fits better, 0..1
    judged: Mapping[str, ndarray] = field(default_factory=dict)  # float32 M,D by each judge
    is_subject: bool = False  # all show the one thing that the model was taught (DreamBooth)

    @property
    def signatures(self) -> ImageSignatures:
        """What copies are searched by."""
        return ImageSignatures(self.features, self.hashes, self.reduced)

    @cached_property
    def style(self) -> ndarray:
        """Mean features, float32 D: its dot product with a picture's is their mean cosine."""
        return self.features.mean(0)


def read_pictures(
    place: str, *, held_out: float = 0.0, prompt: str | None = None
) -> tuple[list[CaptionedImage], list[CaptionedImage]]:
    """The training pictures of a data set, and the others.

    `held_out`: share that a training run held out by itself; `prompt`: the caption of pictures that
    have none. Raises UserError for a missing data set or a faulty row.
    """
    source = pictures_alone(Path(place), prompt) if prompt else open_source(place, _READING)
    rows = list(source.rows())
    if not rows:
        raise UserError(f"{place} holds no captioned picture. Give a folder with metadata.jsonl.")
    training: list[CaptionedImage] = []
    others: list[CaptionedImage] = []
    for row, split in zip(rows, _splits(source, rows, place, held_out), strict=True):
        (training if split == "train" else others).append(
            CaptionedImage(row.picture or row.where, texts_of(row.caption)[0], partial(_image, row))
        )
    return training, others


def reference(
    name: str,
    pictures: Sequence[CaptionedImage],
    scorer: Scorer,
    judges: Mapping[str, ImageEncoder] | None = None,
    is_subject: bool = False,
) -> ReferenceImages:
    """Encode training pictures, MAX_PICTURES at most, by the scorer and by judges."""
    import numpy as np

    chosen = [pictures[i] for i in _evenly(len(pictures), MAX_PICTURES)]
    features: list[ndarray] = []
    hashes: list[int] = []
    small: list[ndarray] = []
    judges = judges or {}
    judged: dict[str, list[ndarray]] = {judge: [] for judge in judges}
    for images in _batches(chosen):
        features.append(scorer.features(images))
        hashes += map(perceptual_hash, images)
        small += map(reduced, images)
        for judge, encoder in judges.items():
            judged[judge].append(encoder.features(images))
    every = np.concatenate(features)
    ceiling, accuracy = _own_captions(chosen, every, scorer)
    return ReferenceImages(
        name, tuple(chosen), every, tuple(hashes), np.stack(small), ceiling, accuracy,
        {judge: np.concatenate(each) for judge, each in judged.items()}, is_subject,
    )  # fmt: skip


def _evenly(count: int, limit: int) -> list[int]:
    """At most `limit` of the numbers below `count`, evenly spaced."""
    import numpy as np

    return np.linspace(0, count - 1, min(count, limit)).round().astype(int).tolist()


def _batches(pictures: Sequence[CaptionedImage]) -> Iterator[list[Image.Image]]:
    for first in range(0, len(pictures), BATCH):
        yield [picture.image() for picture in pictures[first : first + BATCH]]


def _own_captions(
    pictures: Sequence[CaptionedImage], features: ndarray, scorer: Scorer
) -> tuple[float, float | None]:
    """Of some real pictures: the mean CLIP score (0..100) with their own captions, an upper bound
    for a model; and how often a picture fits its own caption better than one of other words (0..1,
    chance: 0.5), None if all captions are the same."""
    import numpy as np

    chosen = _evenly(len(pictures), MAX_CAPTIONED)
    captions = np.array([pictures[i].caption for i in chosen], dtype=object)
    texts = np.concatenate([
        scorer.text_features(captions[first : first + BATCH].tolist())
        for first in range(0, len(chosen), BATCH)
    ])  # fmt: skip
    fits = features[chosen] @ texts.T  # picture, caption
    own, others = np.diag(fits), captions[:, None] != captions[None]
    wins = (own[:, None] > fits) + 0.5 * (own[:, None] == fits)
    accuracy = float(wins[others].mean()) if others.any() else None
    return float((100 * own).clip(0).mean()), accuracy


_READING = ReadOptions(strict=True)


def _image(row: Row) -> Image.Image:
    return read_again(row.picture or row.where, row.content)


def _splits(source: Source, rows: list[Row], place: str, held_out: float) -> list[str]:
    """The split of each row, chosen as training does."""
    with RowIndex() as index:
        examine(source, index, held_out=held_out)
        for fault in index.findings(True, 1):
            raise UserError(f"{place}: {fault}; prepare_dataset.py --check lists all faults.")
        splits = dict(index.ask("SELECT row, split FROM rows"))
    return [splits[number] for number in range(1, len(rows) + 1)]
