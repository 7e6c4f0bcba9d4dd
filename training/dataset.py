"""The data set of captioned images: read, checked, cropped, and the order of a run."""

from __future__ import annotations

import copy
import hashlib
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from core.errors import UserError
from core.model_check import resolution_of
from core.paths import is_folder
from data import hub_datasets
from data.captions import CountTokens, texts_of, token_counter, uncounted
from data.images import read_again
from data.index import Finding, RowIndex
from data.rows import UNNAMED, Row
from data.source import ReadOptions, Source
from data.source_detection import open_source, pictures_alone
from data.validate import examine
from training.config import Config, check_data_folder

FAULTS_SHOWN = 10
MAX_HELD_OUT = 64  # pictures that measure the loss: more cost time in every validation


def random_at(seed: int, purpose: str, where: int) -> np.random.Generator:
    """A random generator seeded by its arguments alone: randomness is a function of position."""
    return np.random.default_rng([seed, *purpose.encode(), where])


def order(seed: int, size: int, first: int, count: int) -> list[int]:
    """Pictures `first` to `first + count` of an endless sequence of shuffled epochs of `size`."""
    places = (divmod(number, size) for number in range(first, first + count))
    return [int(_shuffled(seed, size, epoch)[place]) for epoch, place in places]


def order_apart(seed: int, size: int, first: int, count: int) -> list[int]:
    """The same in an order in which a batch never holds a picture twice: `first` is a multiple of
    the batch size `count`, which is at most `size`."""
    places = (divmod(number, size) for number in range(first, first + count))
    return [int(_apart(seed, size, count, epoch)[place]) for epoch, place in places]


@lru_cache(maxsize=256)
def _apart(seed: int, size: int, count: int, epoch: int) -> np.ndarray:
    """An epoch that starts within a batch: pictures which that batch already holds are put off
    until it is full."""
    since = epoch % (math.lcm(size, count) // size)  # epochs since one that began with a batch
    if size >= 3 * count:  # then pictures put off never reach the end of an epoch
        since = min(since, 1)
    row = np.empty(0, np.int32)
    for each in range(epoch - since, epoch + 1):
        shuffled, begun = _shuffled(seed, size, each), each * size % count
        waits = np.isin(shuffled, row[len(row) - begun :])
        ahead = np.flatnonzero(~waits)[: count - begun]
        row = np.concatenate([shuffled[ahead], np.delete(shuffled, ahead)])
    return row


def bucket_of(seed: int, sizes: tuple[int, ...], count: int, step: int) -> tuple[int, int, int]:
    """The bucket of a step, the number of its first picture in that bucket's endless sequence of
    epochs, and the batch size: `count`, or that of the bucket if it is smaller.

    `sizes`: pictures per bucket. An epoch holds the batches that are completed in it, and no
    picture is left out."""
    if len(sizes) == 1:
        return 0, step * min(count, sizes[0]), min(count, sizes[0])
    epoch = int(step * pictures_per_step(sizes, count) / sum(sizes))
    while _batches_before(sizes, count, epoch) > step:
        epoch -= 1
    while _batches_before(sizes, count, epoch + 1) <= step:
        epoch += 1
    bucket, batch = _bucket_order(seed, sizes, count, epoch)[
        step - _batches_before(sizes, count, epoch)
    ]
    several = min(count, sizes[bucket])
    return bucket, batch * several, several


def pictures_per_step(sizes: Sequence[int], count: int) -> float:
    """The mean batch size over an epoch: `count` unless a bucket is smaller."""
    if min(sizes) >= count:
        return count
    return sum(sizes) / sum(size / min(size, count) for size in sizes)


def _batches_before(sizes: tuple[int, ...], count: int, epoch: int) -> int:
    return sum(epoch * size // min(size, count) for size in sizes)


@lru_cache(maxsize=2)
def _bucket_order(
    seed: int, sizes: tuple[int, ...], count: int, epoch: int
) -> list[tuple[int, int]]:
    """The batches of an epoch, as bucket and number in its sequence, shuffled."""
    batches = [
        (bucket, batch)
        for bucket, size in enumerate(sizes)
        for batch in range(epoch * size // min(size, count), (epoch + 1) * size // min(size, count))
    ]
    return [batches[i] for i in random_at(seed, "buckets", epoch).permutation(len(batches))]


@lru_cache(maxsize=16)
def _shuffled(seed: int, size: int, epoch: int) -> np.ndarray:
    return random_at(seed, "order", epoch).permutation(size).astype(np.int32)


class CaptionedImages:
    """The checked data set: every picture opens, every caption has words.

    Of picture i, `captions[i]` are its texts (one or more), `names[i]` its file, `sizes[i]` its
    width and height in pixels, `digests[i]` the SHA-256 of its content. `held_out` is the data set
    of the pictures that only measure the loss, or None; `fingerprint` identifies the content;
    `warnings` are sentences on what may be unintended."""

    def __init__(self, config: Config, source: Source | None = None):
        """Open what the options name, or `source`. Raises `UserError` with all faults at once."""
        self.config = config
        place = source.name if source else config.data  # the name that the user gave
        checked, facts, self.warnings = _checked(source or _source(config), place, config)
        chosen = [number for number, *about in facts if about[0] == "train"]
        held_out = [number for number, *about in facts if about[0] != "train"]
        known = {number: about for number, *about in facts}
        self.held_out: CaptionedImages | None = None
        if held_out:
            # Drawn by content, so that the same ones are held out when others are added.
            held_out = sorted(held_out, key=lambda number: known[number][2])[:MAX_HELD_OUT]
            self.held_out = copy.copy(self)
            self.held_out._take(held_out, checked, known)
        self._take(chosen, checked, known)

    def _take(self, numbers: list[int], rows: list[Row], known: dict[int, list]) -> None:
        """Keep these rows, counted from 1, and the facts on them."""
        rows = [rows[number - 1] for number in numbers]
        about = [known[number] for number in numbers]
        self.captions = [texts_of(row.caption) for row in rows]
        self.names = [row.where if row.picture in ("", UNNAMED) else row.picture for row in rows]
        self._contents = [row.content for row in rows]
        self.digests = [content for _, _, content, _, _ in about]
        self.sizes = [(width, height) for *_, width, height in about]
        digest = hashlib.sha256(b"".join(caption + content for _, caption, content, *_ in about))
        self.fingerprint = digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._contents)

    def first(self, count: int) -> CaptionedImages:
        """The first pictures alone, without held-out ones."""
        few = copy.copy(self)
        few.held_out = None
        few.captions, few.names = self.captions[:count], self.names[:count]
        few._contents, few.digests = self._contents[:count], self.digests[:count]
        few.sizes = self.sizes[:count]
        return few

    def image(self, index: int) -> Image.Image:
        """Picture `index`, upright and in RGB, at its own size. Raises `UserError` if it has
        changed since it was checked."""
        return read_again(self.names[index], self._contents[index], self.digests[index])

    def pixels(
        self, index: int, shape: tuple[int, int], place: tuple[float, float] | None = None
    ) -> torch.Tensor:
        """Picture `index`, resized to cover `shape` (H, W) and cropped: uint8 3,H,W in 0..255.

        `place` in 0..1 is the crop position (x, y); None: as the options say, always the same.
        """
        if place is None and self.config.center_crop:
            place = (0.5, 0.5)
        elif place is None:
            content = int.from_bytes(self.digests[index][:8], "big")
            place = tuple(random_at(self.config.seed, "crop", content).random(2))
        mode = Image.Resampling[self.config.image_interpolation_mode.upper()]
        cropped = covering(self.image(index), shape, place, mode)
        return torch.from_numpy(np.array(cropped)).permute(2, 0, 1)

    def batches(
        self, size: int, shape: tuple[int, int], numbers: Sequence[int] | None = None
    ) -> Iterator[torch.Tensor]:
        """Batches of all pictures, or of `numbers`, in order: uint8 N,3,H,W, decoded by threads two
        batches ahead."""
        numbers = range(len(self)) if numbers is None else numbers
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ahead: deque[list[Future[torch.Tensor]]] = deque()
            for first in range(0, len(numbers), size):
                several = numbers[first : first + size]
                ahead.append([pool.submit(self.pixels, number, shape) for number in several])
                if len(ahead) > 2:
                    yield torch.stack([pixels.result() for pixels in ahead.popleft()])
            while ahead:
                yield torch.stack([pixels.result() for pixels in ahead.popleft()])


def covering(
    image: Image.Image,
    shape: tuple[int, int],
    place: tuple[float, float],
    mode: Image.Resampling = Image.Resampling.LANCZOS,
) -> Image.Image:
    """The picture resized to just cover `shape` (H, W), then cropped at `place` (x, y)."""
    height, width = shape
    scale = max(width / image.width, height / image.height)
    wide, high = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    image = image.resize((wide, high), mode)
    left, top = round(place[0] * (wide - width)), round(place[1] * (high - height))
    return image.crop((left, top, left + width, top + height))


def bucket_shape(size: tuple[int, int], resolution: int, multiple: int) -> tuple[int, int]:
    """The (H, W) of about `resolution` squared pixels whose aspect ratio is nearest to a picture's.

    Sides are multiples of `multiple`, from half to twice the resolution.
    """
    aspect = size[0] / size[1]
    sides = range(multiple, 2 * resolution + 1, multiple)
    shapes = [(resolution * resolution // width // multiple * multiple, width) for width in sides]
    fitting = [(h, w) for h, w in shapes if resolution <= 2 * h <= 4 * resolution <= 8 * w]
    return min(fitting, key=lambda shape: abs(math.log(shape[1] / shape[0] / aspect)))


def _checked(
    source: Source, place: str, config: Config
) -> tuple[list[Row], list[tuple], list[str]]:
    """The rows; the facts on each (number from 1, split, digests of caption and content, width,
    height); warnings. Raises `UserError` with all faults."""
    rows = list(source.rows())
    if config.max_train_samples is not None:
        train = [row for row in rows if row.split == "train"]
        drawn = random_at(config.seed, "subset", 0).permutation(len(train))
        chosen = {id(train[i]) for i in drawn[: config.max_train_samples]}
        rows = [row for row in rows if id(row) in chosen or row.split != "train"]
        source = replace(source, folders=())  # pictures without a row are expected now
    with RowIndex() as index:
        examine(
            replace(source, rows=lambda: iter(rows)),
            index,
            resolution=config.resolution
            or resolution_of(config.pretrained_model_name_or_path, config.revision),
            count_tokens=_token_counter(config),
            held_out=config.held_out,
        )
        if faults := index.count(fault=True):
            shown = chain(index.findings(True, FAULTS_SHOWN), _said(source))
            raise UserError(_listed(place, shown, faults))
        warnings = list(index.kinds(False, FAULTS_SHOWN))
        if (more := index.count_kinds(False) - FAULTS_SHOWN) > 0:
            warnings.append(f"and {more:,} more; prepare_dataset.py --check lists them")
        facts = "SELECT row, split, caption, content, width, height FROM rows ORDER BY row"
        return rows, list(index.ask(facts)), warnings


def _said(source: Source) -> Iterator[Finding]:
    """Notes on the form of the data, such as the column of captions: they may explain faults."""
    return (finding for finding in source.findings if not finding.fault)


def _source(config: Config) -> Source:
    """The data source that the options name."""
    read_options = ReadOptions(
        image_column=config.image_column,
        caption_column=config.caption_column,
        config_name=config.dataset_config_name,
        cache_dir=config.cache_dir,
        strict=True,
    )
    if config.instance_data_dir:
        return pictures_alone(Path(config.instance_data_dir), config.instance_prompt or "")
    check_data_folder(config)
    if is_folder(config.data):
        source = open_source(config.data, read_options)
    else:
        source = hub_datasets.from_hub(config.data, read_options)
    if config.instance_prompt:  # stands for the subject, whatever the captions say
        called = lambda: (replace(row, caption=config.instance_prompt) for row in source.rows())  # noqa: E731
        return replace(source, rows=called)
    return source


def _token_counter(config: Config) -> CountTokens:
    """The counter of a caption's tokens. Without a tokenizer it counts nothing: opening the model
    will report that."""
    name, subfolder = config.tokenizer_name, ""
    if name is None:
        name, subfolder = config.pretrained_model_name_or_path, "tokenizer"
    try:
        return token_counter(name, config.revision, subfolder, config.tokenizer_max_length)
    except UserError:
        return uncounted


def _listed(place: str, faults: Iterable[Finding], count: int) -> str:
    shown = "; ".join(str(fault) for fault in faults)
    more = f"; and {count - FAULTS_SHOWN} more" if count > FAULTS_SHOWN else ""
    return (
        f"{place} cannot be learned from: {shown}{more}. Mend or delete these rows; "
        "prepare_dataset.py --check lists them all."
    )
