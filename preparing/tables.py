"""Data sets of the hub, of `datasets`' save_to_disk, and Parquet: tables that hold pictures."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EIO
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock

from core.inputs import opened
from core.model_files import check_files
from errors import UserError, reason_of
from preparing.rows import CAPTION_COLUMNS, Row, content_of, known_column

IMAGE_COLUMNS = ("image", "img", "picture")
SPLITS = {"train": "train", "test": "test", "validation": "test", "held_out": "test"}
READING = Lock()


def from_hub(name: str, reading):
    """A data set of the hub. Raises `UserError` with the reason where it cannot be had."""
    from datasets import load_dataset

    try:
        table = load_dataset(name, reading.config_name, cache_dir=reading.cache_dir)
    except Exception as error:  # datasets raises a dozen kinds: network, name, script, format
        raise UserError(f"The data set {name} cannot be loaded: {reason_of(error)}") from error
    return _from_table(name, table, reading)


def from_disk(folder: Path, reading):
    """What `datasets`' save_to_disk wrote."""
    from datasets import load_from_disk

    check_files(folder)
    try:
        table = load_from_disk(str(folder))
    except Exception as error:  # of as many kinds as there are ways to damage such a folder
        raise UserError(
            f"{folder} cannot be loaded ({reason_of(error)}); write it again."
        ) from error
    return _from_table(str(folder), table, reading)


def _from_table(name: str, table, reading):
    from datasets import DatasetDict

    from preparing.sources import Source

    parts = dict(table) if isinstance(table, DatasetDict) else {"train": table}
    if "train" not in parts:
        raise UserError(f"{name} has no part 'train', only {', '.join(parts)}.")
    parts = {part: rows for part, rows in parts.items() if part in SPLITS}
    opened = {part: _columns(name, rows, reading) for part, rows in parts.items()}
    return Source(
        name,
        partial(_table_rows, opened),
        sum(len(rows) for rows in parts.values()),
        held_out=len(parts) > 1,
        identity="".join(rows._fingerprint for rows in parts.values()),
    )


def _columns(name: str, table, reading):
    """The columns of pictures, as undecoded bytes or paths, and of captions."""
    from datasets import Image

    image, caption = _known_columns(name, table.column_names, reading)
    if not isinstance(table.features[image], Image):
        raise _no_pictures(image, name, reading)
    table = table.cast_column(image, Image(decode=False))
    return table.select_columns(image), table.select_columns(caption)


def _no_pictures(column: str, place: str, reading) -> UserError:
    return UserError(
        f"The column {column!r} of {place} does not hold pictures; name another with "
        f"{reading.options[0]}."
    )


def _table_rows(opened: dict) -> Iterator[Row]:
    for part, (pictures, captions) in opened.items():
        place = f"{part}, row" if len(opened) > 1 else "row"
        for index, (caption,) in enumerate(entry.values() for entry in captions):
            content = partial(_stored, pictures, index)
            yield Row(f"{place} {index + 1}", "picture", content, caption, split=SPLITS[part])


def _stored(pictures, index: int) -> bytes:
    """The file of a picture in a table of that one column: kept in the table or beside it."""
    (picture,) = pictures[index].values()
    return _bytes_of(picture)


def _bytes_of(picture: object) -> bytes:
    """The file of a picture as `datasets` keeps it: bytes, or where they are."""
    content, path = (picture or {}).get("bytes"), (picture or {}).get("path")
    if isinstance(path, str) and not content:
        return content_of(Path(path))
    return content if isinstance(content, bytes) else b""


def _known_columns(place: str, columns: list[str], reading) -> tuple[str, str]:
    """The columns of pictures and of captions."""
    return (
        known_column(columns, reading.image_column, IMAGE_COLUMNS, place, reading.options[0]),
        known_column(columns, reading.caption_column, CAPTION_COLUMNS, place, reading.options[1]),
    )


def parquet_count(paths: list[Path]) -> int:
    return sum(_parquet(path).metadata.num_rows for path in paths)


def parquet_rows(parts: list[tuple[Path, str]], reading) -> Iterator[Row]:
    """Rows of Parquet files; pictures are read a row group at a time, when they are wanted."""
    from pyarrow.types import is_binary, is_large_binary, is_struct

    for path, split in parts:
        file = _parquet(path)
        image, caption = _known_columns(str(path), file.schema_arrow.names, reading)
        kind = file.schema_arrow.field(image).type
        if not (is_binary(kind) or is_large_binary(kind) or is_struct(kind)):
            raise _no_pictures(image, str(path), reading)
        number = 0
        for group in range(file.num_row_groups):
            for index, text in enumerate(_captions(file, group, caption, path, number)):
                number += 1
                content = partial(_parquet_picture, path, group, image, index)
                yield Row(f"{path.name}, row {number}", "picture", content, text, split=split)


def _captions(file, group: int, column: str, path: Path, before: int) -> list:
    """The captions of a row group. Raises `UserError`; `before`: rows that were read until then."""
    try:
        return file.read_row_group(group, columns=[column]).column(0).to_pylist()
    except Exception as error:  # Arrow's kinds are as many as there are ways to damage a file
        raise UserError(
            f"{path} cannot be read beyond row {before} ({reason_of(error)}); fetch it again."
        ) from error


def _parquet(path: Path):
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(opened(path))
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is no whole Parquet file ({reason_of(error)}); fetch it again."
        ) from error


def _parquet_picture(path: Path, group: int, column: str, index: int) -> bytes:
    """Raises OSError where the file is damaged there."""
    try:
        with READING:  # several rows of a new group are asked for at once: it is read for all
            picture = _row_group(path, group, column)[index].as_py()
    except Exception as error:  # as above
        raise OSError(EIO, reason_of(error), str(path)) from error
    return picture if isinstance(picture, bytes) else _bytes_of(picture)


@lru_cache(maxsize=2)  # neighbours share a group, and are read one after the other
def _row_group(path: Path, group: int, column: str):
    return _parquet(path).read_row_group(group, columns=[column]).column(0)
