"""The ways in which a folder holds data, and which of them is read where it holds several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from core.errors import UserError
from data.caption_files import open_pairs
from data.folder_scan import FolderContents
from data.index import Finding
from data.metadata_files import names_pictures, open_table
from data.parquet import holds_pictures, open_parquet
from data.source import ReadOptions, Source
from data.webdataset import is_shard, open_shards

TRIED = 20  # files of one kind of which is seen whether they are data
NAMED = 5  # files in a sentence


class DetectedLayout(NamedTuple):
    """Data in a folder."""

    what: str  # as a sentence begins that says what is read
    files: Sequence[Path]  # which they are, where they are not all its pictures
    opened: Callable[[], Source]


def _captioned(
    folder: Path, contents: FolderContents, reading: ReadOptions
) -> DetectedLayout | None:
    """A caption file beside most pictures."""
    most = 0 < contents.pictures <= 2 * contents.captioned
    return _partly_captioned(folder, contents, reading) if most else None


def _partly_captioned(
    folder: Path, contents: FolderContents, reading: ReadOptions
) -> DetectedLayout | None:
    if not contents.captioned and not contents.repeated:
        return None
    return DetectedLayout(
        "the caption files beside the pictures are", (), partial(open_pairs, folder, contents)
    )


def _parquet(folder: Path, contents: FolderContents, reading: ReadOptions) -> DetectedLayout | None:
    """Parquet files with pictures, or the names of their files."""
    fits = any(holds_pictures(path, reading) for path in contents.parquet[:TRIED])
    return _any_parquet(folder, contents, reading) if fits else None


def _any_parquet(
    folder: Path, contents: FolderContents, reading: ReadOptions
) -> DetectedLayout | None:
    """So that the columns are named of which one may be meant."""
    if not contents.parquet:
        return None
    opened = partial(open_parquet, str(folder), folder, contents.parquet, reading)
    return DetectedLayout("the Parquet files are", contents.parquet, opened)


def _shards(folder: Path, contents: FolderContents, reading: ReadOptions) -> DetectedLayout | None:
    """WebDataset's tar archives."""
    paths = [path for path in contents.archives if path.suffix.lower() == ".tar"]
    if not any(is_shard(path) for path in paths[:1]):
        return None
    return DetectedLayout(
        "the tar archives are", paths, partial(open_shards, str(folder), folder, paths, reading)
    )


def _table(folder: Path, contents: FolderContents, reading: ReadOptions) -> DetectedLayout | None:
    """A table that names pictures which are there."""
    paths = [] if reading.strict else contents.tables[:TRIED]
    return _one_of(folder, [path for path in paths if names_pictures(path, reading)], reading)


def _any_table(
    folder: Path, contents: FolderContents, reading: ReadOptions
) -> DetectedLayout | None:
    return _one_of(folder, contents.tables, reading)


def _one_of(folder: Path, paths: list[Path], reading: ReadOptions) -> DetectedLayout | None:
    """A single table. Raises `UserError` where there are several."""
    if not paths or reading.strict:  # training wants metadata, which diffusers' script reads too
        return None
    if paths[1:]:
        names = ", ".join(str(path) for path in paths[:NAMED])
        raise UserError(f"{folder} holds several tables: {names}; give one of them as SOURCE.")
    return DetectedLayout(
        f"{paths[0].name} is", paths, partial(open_table, paths[0], reading, str(folder))
    )


# The first that is found is read; what only might be data is asked last.
LAYOUTS = (
    _captioned, _parquet, _shards, _table, _partly_captioned, _any_parquet, _any_table,
)  # fmt: skip


def not_read(
    folder: Path, contents: FolderContents, chosen: DetectedLayout, reading: ReadOptions
) -> list[Finding]:
    """What is said of other data in a folder, and how to read them instead."""
    read = set(chosen.files)
    others = [
        path.relative_to(folder).as_posix()
        for path in (*contents.tables, *contents.parquet, *contents.archives) if path not in read
    ]  # fmt: skip
    said = []
    if others:
        more = f" and {len(others) - NAMED} more" if others[NAMED:] else ""
        way = f"{reading.giving.format('it')} if it is what you mean"
        said.append(f"not {', '.join(others[:NAMED])}{more}: {way}")
    if contents.captioned and chosen.files:
        said.append("not the caption files beside the pictures: move the former away to read these")
    return [Finding(str(folder), f"{chosen.what} read, {each}", fault=False) for each in said]
