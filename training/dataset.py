"""Captioned images: read, check, crop, order."""

import csv
import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from errors import UserError

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


@dataclass(frozen=True)
class Row:
    """One captioned picture as the user wrote it; its content is read when it is wanted."""

    where: str  # as the user would look for it: "metadata.csv, row 41"
    picture: str  # the name of its file
    content: Callable[[], bytes]
    caption: object


class CaptionedImages:
    """The data set, checked: every picture opens, every caption says something.

    `captions[i]` are the texts of picture i (one or more); `fingerprint` names the content.
    Raises `UserError` with all the faults at once.
    """

    def __init__(self, config):
        self.config = config
        rows = _read(config)
        if config.max_train_samples is not None:
            chosen = random_at(config.seed, "subset", 0).permutation(len(rows))
            rows = [rows[i] for i in sorted(chosen[: config.max_train_samples])]
        faults, digests = [], []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for row, (fault, digest) in zip(rows, pool.map(_inspect, rows), strict=True):
                faults += [f"{row.where}: {fault}"] if fault else []
                digests.append(digest)
        if faults:
            raise UserError(_listed(config.data, faults))
        if len(rows) < config.train_batch_size:
            raise UserError(
                f"{config.data} has {len(rows)} pictures, fewer than --train_batch_size "
                f"{config.train_batch_size}: lower it or add pictures."
            )
        self.captions = [_texts(row.caption) for row in rows]
        self.fingerprint = hashlib.sha256("".join(digests).encode()).hexdigest()[:16]
        self._contents = [row.content for row in rows]

    def __len__(self) -> int:
        return len(self._contents)

    def pixels(self, index: int, resolution: int) -> torch.Tensor:
        """Picture `index`, shorter side resized, cropped: uint8 3,R,R in 0..255."""
        image = upright_rgb(_decoded(self._contents[index]()))
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


def upright_rgb(image: Image.Image) -> Image.Image:
    """RGB as the eye sees it: EXIF rotation applied, transparency put on white, 16 bits to 8."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def square(image: Image.Image, side: int, place: tuple[float, float]) -> Image.Image:
    """Shorter side resized to `side`, then cropped; `place` in 0..1 says where (x, y)."""
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = round(place[0] * (width - side)), round(place[1] * (height - side))
    return image.crop((left, top, left + side, top + side))


def _decoded(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def _texts(caption: object) -> tuple[str, ...]:
    return (caption,) if isinstance(caption, str) else tuple(caption)


def _inspect(row: Row) -> tuple[str | None, str]:
    """What is wrong with a row (or None), and the digest of its picture and captions."""
    if fault := _caption_fault(row.caption):
        return fault, ""
    try:
        content = row.content()
        _decoded(content)
    except (FileNotFoundError, IsADirectoryError):
        return f"there is no file {row.picture!r}", ""
    # What Pillow raises depends on the format and on where the damage is.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return f"{row.picture!r} cannot be read as a picture", ""
    return None, hashlib.sha256(repr(row.caption).encode() + content).hexdigest()


def _caption_fault(caption: object) -> str | None:
    texts = caption if isinstance(caption, list | tuple) else [caption]
    if caption is None or not texts:
        return "has no caption"
    if not all(isinstance(text, str) for text in texts):
        return f"the caption {caption!r} is not a text"
    return None if all(text.strip() for text in texts) else "the caption is blank"


def _listed(place: str, faults: list[str]) -> str:
    more = len(faults) - FAULTS_SHOWN
    shown = "; ".join(faults[:FAULTS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    return f"{place} cannot be learned from: {shown}. Mend or delete these rows."


def _read(config) -> list[Row]:
    """The rows of the data set, whatever form it has; not yet checked."""
    if config.dataset_name:
        return _from_hub(config)
    folder = Path(config.train_data_dir)
    if not folder.is_dir():
        raise UserError(f"The data folder {folder} does not exist; check --train_data_dir.")
    if any((folder / name).exists() for name in ("state.json", "dataset_dict.json")):
        from datasets import load_from_disk

        return _from_table(load_from_disk(str(folder)), config)
    for name, parse in METADATA.items():
        for path in (folder / name, folder / "train" / name):
            if path.exists():
                return _from_metadata(path, parse, config.caption_column)
    raise UserError(
        f"{folder} has no metadata.jsonl or metadata.csv; add one that gives each picture "
        '"file_name" and "text".'
    )


def _from_metadata(path: Path, parse: Callable[[Path], list[dict]], column: str) -> list[Row]:
    """Rows of an ImageFolder: file names are relative to the metadata."""
    entries = parse(path)
    if not entries:
        raise UserError(f"{path} is empty; give each picture a row.")
    columns = list(dict.fromkeys(str(name) for entry in entries for name in entry))
    for needed, hint in (("file_name", ""), (column, "; choose with --caption_column")):
        if needed not in columns:
            raise UserError(f"{path} has no column {needed!r}, only {', '.join(columns)}{hint}.")
    rows = []
    for number, entry in enumerate(entries, 1):
        name = str(entry.get("file_name") or "")
        content = (path.parent / name).read_bytes
        rows.append(Row(f"{path.name}, row {number}", name, content, entry.get(column)))
    return rows


def _json_lines(path: Path) -> list[dict]:
    entries = []
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            entries.append(dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}, line {number} is not a JSON object: {error}.") from None
    return entries


def _csv_rows(path: Path) -> list[dict]:
    return list(csv.DictReader(io.StringIO(_text(path), newline="")))


def _text(path: Path) -> str:
    """The text of a file, in UTF-8 with or without the mark that Excel puts before it."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not in UTF-8 ({error.reason}); save it as UTF-8.") from error


METADATA = {"metadata.jsonl": _json_lines, "metadata.csv": _csv_rows}


def _from_hub(config) -> list[Row]:
    from datasets import load_dataset

    try:
        table = load_dataset(config.dataset_name, config.dataset_config_name)
    except Exception as error:  # datasets raises a dozen kinds: network, name, script, format
        reason = str(error).splitlines()[0]
        raise UserError(f"The data set {config.dataset_name} cannot be loaded: {reason}") from error
    return _from_table(table, config)


def _from_table(table, config) -> list[Row]:
    """Rows of a `datasets` table; its pictures stay undecoded bytes or paths."""
    from datasets import DatasetDict
    from datasets import Image as ImageColumn

    if isinstance(table, DatasetDict):
        if "train" not in table:
            raise UserError(f"{config.data} has no part 'train', only {', '.join(table)}.")
        table = table["train"]
    for column in (config.image_column, config.caption_column):
        if column not in table.column_names:
            known = ", ".join(table.column_names)
            raise UserError(f"{config.data} has no column {column!r}, only {known}.")
    if not isinstance(table.features[config.image_column], ImageColumn):
        raise UserError(
            f"The column {config.image_column!r} of {config.data} does not hold pictures; "
            "name another with --image_column."
        )
    table = table.cast_column(config.image_column, ImageColumn(decode=False))
    pictures, captions = table.select_columns(config.image_column), table[config.caption_column]
    return [
        Row(f"row {i + 1}", config.image_column, partial(_stored, pictures, i), caption)
        for i, caption in enumerate(captions)
    ]


def _stored(pictures, index: int) -> bytes:
    """The file of a picture in a table of that one column: kept in the table or beside it."""
    (picture,) = pictures[index].values()
    picture = picture or {"bytes": b""}
    return picture["bytes"] or Path(picture["path"]).read_bytes()
