"""Captioned images: read, check, crop, order."""

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from errors import UserError
from preparing import tables
from preparing.captions import token_counter
from preparing.check import CountTokens, examine, texts_of, uncounted
from preparing.ledger import Finding, Ledger
from preparing.pictures import decoded, upright_rgb
from preparing.sources import Reading, Source, open_source

FAULTS_SHOWN = 10


def random_at(seed: int, purpose: str, where: int) -> np.random.Generator:
    """A generator that depends on its arguments alone: randomness is a function of position."""
    return np.random.default_rng([seed, *purpose.encode(), where])


def order(seed: int, size: int, first: int, count: int) -> list[int]:
    """Pictures number `first` to `first + count` of an endless row of shuffled epochs of `size`."""
    places = (divmod(number, size) for number in range(first, first + count))
    return [int(_shuffled(seed, size, epoch)[place]) for epoch, place in places]


@lru_cache(maxsize=2)
def _shuffled(seed: int, size: int, epoch: int) -> np.ndarray:
    return random_at(seed, "order", epoch).permutation(size)


class CaptionedImages:
    """The data set, checked: every picture opens, every caption says something.

    `captions[i]` are the texts of picture i (one or more); `fingerprint` names the content;
    `warnings` are sentences on what may not be as it was meant. Raises `UserError` with all the
    faults at once.
    """

    def __init__(self, config):
        self.config = config
        source = _source(config)
        checked = list(source.rows())
        rows = [row for row in checked if row.split == "train"]
        if config.max_train_samples is not None:
            chosen = random_at(config.seed, "subset", 0).permutation(len(rows))
            rows = checked = [rows[i] for i in sorted(chosen[: config.max_train_samples])]
            source = replace(source, folders=())  # pictures without a row are meant to be there
        with Ledger() as ledger:
            examine(
                replace(source, rows=lambda: iter(checked)),
                ledger,
                resolution=config.resolution,
                count_tokens=_token_counter(config),
            )
            if faults := ledger.count(fault=True):
                raise UserError(_listed(config.data, ledger.findings(True, FAULTS_SHOWN), faults))
            self.warnings = [str(warning) for warning in ledger.findings(False, FAULTS_SHOWN)]
            if (more := ledger.count(fault=False) - FAULTS_SHOWN) > 0:
                self.warnings.append(f"and {more:,} more; prepare_dataset.py --check lists them")
            digests = ledger.ask(
                "SELECT caption, content FROM rows WHERE split = 'train' ORDER BY row"
            )
            digest = hashlib.sha256(b"".join(part for pair in digests for part in pair))
        if len(rows) < config.train_batch_size:
            raise UserError(
                f"{config.data} has {len(rows)} pictures, fewer than --train_batch_size "
                f"{config.train_batch_size}: lower it or add pictures."
            )
        self.captions = [texts_of(row.caption) for row in rows]
        self.fingerprint = digest.hexdigest()[:16]
        self._contents = [row.content for row in rows]

    def __len__(self) -> int:
        return len(self._contents)

    def pixels(self, index: int, resolution: int) -> torch.Tensor:
        """Picture `index`, shorter side resized, cropped: uint8 3,R,R in 0..255."""
        image, _ = decoded(self._contents[index]())
        image = upright_rgb(image)
        place = (0.5, 0.5)
        if not self.config.center_crop:
            place = tuple(random_at(self.config.seed, "crop", index).random(2))
        return torch.from_numpy(np.array(square(image, resolution, place))).permute(2, 0, 1)

    def batches(self, size: int, resolution: int) -> Iterator[torch.Tensor]:
        """All pictures in order, uint8 N,3,R,R, decoded by threads two batches ahead."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ahead = deque()
            for first in range(0, len(self), size):
                indices = range(first, min(first + size, len(self)))
                ahead.append([pool.submit(self.pixels, i, resolution) for i in indices])
                if len(ahead) > 2:
                    yield torch.stack([pixels.result() for pixels in ahead.popleft()])
            while ahead:
                yield torch.stack([pixels.result() for pixels in ahead.popleft()])


def square(image: Image.Image, side: int, place: tuple[float, float]) -> Image.Image:
    """Shorter side resized to `side`, then cropped; `place` in 0..1 says where (x, y)."""
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = round(place[0] * (width - side)), round(place[1] * (height - side))
    return image.crop((left, top, left + side, top + side))


def _source(config) -> Source:
    """The data that the options name."""
    reading = Reading(
        image_column=config.image_column,
        caption_column=config.caption_column,
        config_name=config.dataset_config_name,
        strict=True,
    )
    if config.dataset_name:
        return tables.from_hub(config.dataset_name, reading)
    if not Path(config.train_data_dir).is_dir():
        raise UserError(
            f"The data folder {config.train_data_dir} does not exist; check --train_data_dir."
        )
    return open_source(config.train_data_dir, reading)


def _token_counter(config) -> CountTokens:
    """Counts nothing where there is no tokenizer: opening the model will say what to do."""
    try:
        return token_counter(config.pretrained_model_name_or_path, config.revision)
    except UserError:
        return uncounted


def _listed(place: str, faults: Iterable[Finding], count: int) -> str:
    shown = "; ".join(str(fault) for fault in faults)
    more = f"; and {count - FAULTS_SHOWN} more" if count > FAULTS_SHOWN else ""
    return (
        f"{place} cannot be learned from: {shown}{more}. Mend or delete these rows; "
        "prepare_dataset.py --check lists them all."
    )
