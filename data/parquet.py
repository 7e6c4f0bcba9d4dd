"""Parquet files with embedded pictures or file names, read a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from errno import EIO
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path
from threading import Lock

from core.errors import UserError, is_ours, reason_of
from core.paths import fault_of, opened
from data.folder_walk import files_below
from data.hub_datasets import IMAGE_COLUMNS, bytes_of, known_columns, no_pictures
from data.index import Finding
from data.rows import LOOKED_AT, PICTURE_COLUMNS, UNNAMED, Row, TableEntry, caption_guess, rows_of
from data.source import ReadOptions, Source
from data.splits import held_out_folders, parted, unread

BATCH_ROWS = 1_000  # of captions and file names in memory
USUAL = (*IMAGE_COLUMNS, *PICTURE_COLUMNS)
ONE_BY_ONE = Lock()


def holds_pictures(path: Path, options: ReadOptions) -> bool:
    """Whether a Parquet file has a column of pictures or file names."""
    columns = _opened(path).schema_arrow.names
    return any(name in columns for name in (options.image_column, *USUAL))


def open_parquet(name: str, folder: Path, paths: list[Path], options: ReadOptions) -> Source:
    """The rows of one or several files; `folder` contains them all."""
    parts, others = parted(paths, folder)
    named = [path for path, _ in parts if _names_files(path, options)]
    pictures = list(dict.fromkeys(options.images or path.parent for path in named))
    rows = partial(_rows, parts, options)
    held_out = any(split == "test" for _, split in parts)
    if any(map(held_out_folders, pictures)):
        held_out = held_out or any(row.split == "test" for row in rows())
    return Source(
        name,
        rows,
        sum(_opened(path).metadata.num_rows for path, _ in parts),
        folders=((pictures[0], "train"),) if len(pictures) == 1 else (),
        findings=(
            *unread(folder, others, options.advice),
            *_guess(parts[0][0], options),
        ),
        held_out=held_out,
        files=lambda: chain(paths, *map(files_below, pictures)),
    )


def _rows(parts: list[tuple[Path, str]], options: ReadOptions) -> Iterator[Row]:
    for path, split in parts:
        folder = options.images or path.parent
        if _names_files(path, options):
            columns = known_columns(str(path), _opened(path).schema_arrow.names, options, USUAL)
            entries, held_out = _entries(path, columns), held_out_folders(folder)
            yield from rows_of(
                entries, path, folder, columns, options.column_options, split, held_out
            )
        else:
            yield from _rows_with_pictures(path, split, folder, options)


def _names_files(path: Path, options: ReadOptions) -> bool:
    """Whether the image column holds file names. Raises `UserError` for other types."""
    from pyarrow.types import is_binary, is_large_binary, is_large_string, is_string, is_struct

    schema = _opened(path).schema_arrow
    image, _ = known_columns(str(path), schema.names, options, USUAL)
    kind = schema.field(image).type
    if is_string(kind) or is_large_string(kind):
        return True
    if not (is_binary(kind) or is_large_binary(kind) or is_struct(kind)):
        raise no_pictures(image, str(path), options)
    return False


def _entries(path: Path, columns: tuple[str, ...]) -> Iterator[TableEntry]:
    rows = _values(_opened(path), path, columns=list(columns))
    for number, fields in enumerate(rows, 1):
        yield TableEntry(f"{path.name}, row {number}", fields)


def _values(file, path: Path, before: int = 0, **which) -> Iterator[dict]:
    """Iterate over rows as dicts. `before`: rows read so far. Raises `UserError`."""
    batches = file.iter_batches(BATCH_ROWS, **which)
    while True:
        try:
            batch = next(batches, None)
            several = batch.to_pylist() if batch else []
        except Exception as error:  # of many types, depending on the damage
            if is_ours(error):
                raise
            raise UserError(
                f"{path} cannot be read beyond row {before} ({reason_of(error)}); fetch it again."
            ) from error
        if not several:
            return
        yield from several
        before += len(several)


def _rows_with_pictures(
    path: Path, split: str, folder: Path, options: ReadOptions
) -> Iterator[Row]:
    """Rows with embedded pictures, which are loaded a row group at a time on demand."""
    file = _opened(path)
    image, caption = known_columns(str(path), file.schema_arrow.names, options, USUAL)
    number = 0
    for group in range(file.num_row_groups):
        texts = _values(file, path, number, row_groups=[group], columns=[caption])
        for index, fields in enumerate(texts):
            number += 1
            content, text = partial(_picture, path, group, image, index, folder), fields[caption]
            yield Row(f"{path.name}, row {number}", UNNAMED, content, text, split=split)


def _guess(path: Path, options: ReadOptions) -> Iterator[Finding]:
    file = _opened(path)
    names, captions = file.schema_arrow.names, []
    _, caption = known_columns(str(path), names, options, USUAL)
    with suppress(UserError):  # reported by the rows
        first = islice(_values(file, path, columns=[caption]), LOOKED_AT)
        captions = [fields[caption] for fields in first]
    if sentence := caption_guess(names, captions, options.caption_key, options.column_options[1]):
        yield Finding(path.name, sentence, fault=False)


def _opened(path: Path):
    import pyarrow
    import pyarrow.parquet

    try:
        file = opened(path)
    except OSError as error:
        raise UserError(f"{path} {fault_of(error)}; put a Parquet file there.") from error
    try:
        return pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(
            f"{path} is no whole Parquet file ({reason_of(error)}); fetch it again."
        ) from error


def _picture(path: Path, group: int, column: str, index: int, folder: Path) -> bytes:
    """The bytes of a picture. Raises OSError if the file is damaged."""
    try:
        with ONE_BY_ONE:  # threads that need the same row group wait, so that it is read once
            picture = _row_group(path, group, column)[index].as_py()
    except Exception as error:  # of many types, as above
        if is_ours(error):
            raise
        raise OSError(EIO, reason_of(error), str(path)) from error
    return picture if isinstance(picture, bytes) else bytes_of(picture, [folder])


@lru_cache(maxsize=2)  # neighbouring rows share a row group
def _row_group(path: Path, group: int, column: str):
    return _opened(path).read_row_group(group, columns=[column]).column(0)
