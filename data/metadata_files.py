"""Metadata files: tables of file names and captions as JSON lines, CSV, JSON, COCO or kohya's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

from core.errors import UserError
from core.paths import is_folder
from data import coco, kohya
from data.csv_tables import csv_rows
from data.folder_walk import files_below
from data.index import Finding
from data.json_tables import catalogue, json_lines
from data.rows import CAPTION_COLUMNS, LOOKED_AT, Row, TableEntry, caption_guess, rows_of
from data.source import ReadOptions, Source
from data.splits import held_out_folders
from data.text_files import count_lines, opened_text

TRIED = 20  # rows that are tested for existing pictures
MAX_LINE = 2**20  # characters that are read to recognise JSON lines


@dataclass(frozen=True)
class MetadataTable:
    """An open table; each call of `entries()` reads it from the start."""

    entries: Callable[[], Iterator[TableEntry]]
    findings: tuple[Finding, ...] = ()
    known: bool = False  # the format defines the columns; nothing is guessed


def open_json(path: Path, encoding: str) -> MetadataTable:
    """Open a .json file: COCO, kohya metadata, JSON lines, or a catalogue."""
    if _holds_lines(path, encoding):
        return MetadataTable(partial(json_lines, path, encoding))
    if coco.is_captions(path, encoding):
        index = coco.CocoIndex(path, encoding)
        return MetadataTable(index.entries, index.findings, known=True)
    if kohya.is_metadata(path, encoding):
        return MetadataTable(partial(kohya.metadata, path, encoding), known=True)
    return MetadataTable(partial(catalogue, path, encoding))


def _holds_lines(path: Path, encoding: str) -> bool:
    """Whether the first two lines are JSON objects: JSON lines."""
    with opened_text(path, encoding) as file:
        lines = map(str.strip, iter(partial(file.readline, MAX_LINE), ""))
        first, second = (next(filter(None, lines), "") for _ in range(2))
    return first.startswith("{") and first.endswith("}") and second.startswith("{")


# Readers by suffix, called with path and encoding.
TABLES: dict[str, Callable[[Path, str], MetadataTable]] = {
    ".jsonl": lambda path, encoding: MetadataTable(partial(json_lines, path, encoding)),
    ".csv": lambda path, encoding: MetadataTable(partial(csv_rows, path, encoding)),
    ".json": open_json,
    ".ndjson": lambda path, encoding: MetadataTable(partial(json_lines, path, encoding)),
    ".tsv": lambda path, encoding: MetadataTable(partial(csv_rows, path, encoding)),
}


def open_table(path: Path, options: ReadOptions, name: str | None = None) -> Source:
    """A table with pictures in its own folder, or in that of --images."""
    folder = options.images or path.parent
    if not is_folder(folder):
        raise UserError(f"The picture folder {folder} does not exist; check --images.")
    table = TABLES[path.suffix.lower()](path, options.encoding)
    held_out = held_out_folders(folder)
    rows = partial(_rows, table, path, folder, options, held_out=held_out)
    return Source(
        name or str(path),
        rows,
        _count(table, path),
        folders=((folder, "train"),),
        findings=(*table.findings, *_guess(table, path, options)),
        held_out=bool(held_out) and any(row.split == "test" for row in rows()),
        files=lambda: chain([path], (other for other in files_below(folder) if other != path)),
    )


def names_pictures(path: Path, options: ReadOptions) -> bool:
    """Whether one of the first rows of a table names an existing picture."""
    try:
        table = TABLES[path.suffix.lower()](path, options.encoding)
        return any(map(_is_there, islice(_rows(table, path, path.parent, options), TRIED)))
    except UserError:
        return False


def _is_there(row: Row) -> bool:
    try:
        return not row.fault and bool(row.content())
    except OSError:
        return False


def open_image_folder(folder: Path, files: list[tuple[Path, str]], options: ReadOptions) -> Source:
    """An ImageFolder: metadata files beside the pictures, of one or several splits."""
    first = {path.parent: path for path, _ in reversed(files)}
    twice = [
        Finding(
            str(path.relative_to(folder)), f"there is {first[path.parent].name} as well; "
            "delete one of the two", fault=True,
        )
        for path, _ in files if first[path.parent] != path
    ]  # fmt: skip
    files = [(path, split) for path, split in files if first[path.parent] == path]
    tables = [TABLES[path.suffix](path, options.encoding) for path, _ in files]
    # A folder with metadata of its own is the split of its name, with all folders below.
    held_out = held_out_folders(folder) if files[0][0].parent == folder else ()
    streams = [
        partial(_rows, table, path, path.parent, options, split, path.relative_to(folder), held_out)
        for table, (path, split) in zip(tables, files, strict=True)
    ]
    guesses = [
        guess for table, (path, _) in zip(tables, files, strict=True)
        for guess in _guess(table, path, options)
    ]  # fmt: skip
    rows = lambda: chain.from_iterable(stream() for stream in streams)  # noqa: E731
    return Source(
        str(folder),
        rows,
        sum(_count(table, path) for table, (path, _) in zip(tables, files, strict=True)),
        folders=tuple((path.parent, split) for path, split in files),
        held_out=any(split == "test" for _, split in files)
        or (bool(held_out) and any(row.split == "test" for row in rows())),
        findings=(*twice, *guesses),
        files=partial(files_below, folder),
    )


def _columns(options: ReadOptions) -> tuple[str | None, str | None]:
    """Names of the columns, as chosen; in strict mode those of an ImageFolder."""
    if options.strict:
        return "file_name", options.caption_column or "text"
    return options.image_column, options.caption_column


def _rows(
    table: MetadataTable,
    path: Path,
    folder: Path,
    options: ReadOptions,
    split: str = "train",
    name: Path | None = None,
    held_out: tuple[str, ...] = (),
) -> Iterator[Row]:
    """Rows of a table; `name`: its path in messages if several tables share a file name."""
    part = f"{name.parent}/" if name and name.parent.name else ""
    columns, flags = _columns(options), options.column_options
    for row in rows_of(table.entries(), path, folder, columns, flags, split, held_out):
        yield replace(row, where=part + row.where)


def _guess(table: MetadataTable, path: Path, options: ReadOptions) -> Iterator[Finding]:
    """A warning if the caption column was guessed; faults are reported by the rows."""
    if table.known:
        return
    first = list(islice(table.entries(), LOOKED_AT))
    columns = {name: None for entry in first for name in entry.fields}
    usual = next((name for name in CAPTION_COLUMNS if name in columns), None)
    captions = [entry.fields.get(usual) for entry in first]
    option = options.column_options[1]
    if sentence := caption_guess(columns, captions, options.caption_key, option):
        yield Finding(path.name, sentence, fault=False)


def _count(table: MetadataTable, path: Path) -> int:
    """Number of rows; an upper bound for CSV, whose cells may hold line breaks."""
    if path.suffix.lower() == ".json":
        return sum(1 for _ in table.entries())
    lines = count_lines(path)
    return lines - 1 if path.suffix.lower() in (".csv", ".tsv") else lines
