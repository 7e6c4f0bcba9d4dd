"""Tables of file names and captions, in each format that people write them in."""

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

TRIED = 20  # rows of a table
MAX_LINE = 2**20  # characters of a line that may be one of JSON lines


@dataclass(frozen=True)
class MetadataTable:
    """A table that was opened. `entries()` starts a new pass over it."""

    entries: Callable[[], Iterator[TableEntry]]
    findings: tuple[Finding, ...] = ()
    known: bool = False  # its captions are where its format says, not guessed


def open_json(path: Path, encoding: str) -> MetadataTable:
    """A JSON file: COCO's, kohya's, JSON lines in spite of its name, or a list or an object."""
    if _holds_lines(path, encoding):
        return MetadataTable(partial(json_lines, path, encoding))
    if coco.is_captions(path, encoding):
        index = coco.CocoIndex(path, encoding)
        return MetadataTable(index.entries, index.findings, known=True)
    if kohya.is_metadata(path, encoding):
        return MetadataTable(partial(kohya.metadata, path, encoding), known=True)
    return MetadataTable(partial(catalogue, path, encoding))


def _holds_lines(path: Path, encoding: str) -> bool:
    """Whether each of the first two lines is an object of its own."""
    with opened_text(path, encoding) as file:
        lines = map(str.strip, iter(partial(file.readline, MAX_LINE), ""))
        first, second = (next(filter(None, lines), "") for _ in range(2))
    return first.startswith("{") and first.endswith("}") and second.startswith("{")


# By the suffix of a file; each is told its path and its encoding.
TABLES: dict[str, Callable[[Path, str], MetadataTable]] = {
    ".jsonl": lambda path, encoding: MetadataTable(partial(json_lines, path, encoding)),
    ".csv": lambda path, encoding: MetadataTable(partial(csv_rows, path, encoding)),
    ".json": open_json,
    ".ndjson": lambda path, encoding: MetadataTable(partial(json_lines, path, encoding)),
    ".tsv": lambda path, encoding: MetadataTable(partial(csv_rows, path, encoding)),
}


def open_table(path: Path, options: ReadOptions, name: str | None = None) -> Source:
    """A table whose pictures lie beside it, or in the folder that was named for them."""
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
    """Whether one of the first rows of a table names a picture that is there."""
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


def open_image_folder(folder: Path, found: list[tuple[Path, str]], options: ReadOptions) -> Source:
    """Metadata beside the pictures, for one split or for several."""
    first = {path.parent: path for path, _ in reversed(found)}
    twice = [
        Finding(
            str(path.relative_to(folder)), f"there is {first[path.parent].name} as well; "
            "delete one of the two", fault=True,
        )
        for path, _ in found if first[path.parent] != path
    ]  # fmt: skip
    found = [(path, split) for path, split in found if first[path.parent] == path]
    tables = [TABLES[path.suffix](path, options.encoding) for path, _ in found]
    # With metadata of its own, a folder is what its name says, and so are all below it.
    held_out = held_out_folders(folder) if found[0][0].parent == folder else ()
    streams = [
        partial(_rows, table, path, path.parent, options, split, path.relative_to(folder), held_out)
        for table, (path, split) in zip(tables, found, strict=True)
    ]
    guesses = [
        guess for table, (path, _) in zip(tables, found, strict=True)
        for guess in _guess(table, path, options)
    ]  # fmt: skip
    rows = lambda: chain.from_iterable(stream() for stream in streams)  # noqa: E731
    return Source(
        str(folder),
        rows,
        sum(_count(table, path) for table, (path, _) in zip(tables, found, strict=True)),
        folders=tuple((path.parent, split) for path, split in found),
        held_out=any(split == "test" for _, split in found)
        or (bool(held_out) and any(row.split == "test" for row in rows())),
        findings=(*twice, *guesses),
        files=partial(files_below, folder),
    )


def _columns(options: ReadOptions) -> tuple[str | None, str | None]:
    """Names of the columns of a table; strict metadata have those of an ImageFolder."""
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
    """Rows of a table; `name`: what it is called where several have the same."""
    part = f"{name.parent}/" if name and name.parent.name else ""
    columns, flags = _columns(options), options.column_options
    for row in rows_of(table.entries(), path, folder, columns, flags, split, held_out):
        yield replace(row, where=part + row.where)


def _guess(table: MetadataTable, path: Path, options: ReadOptions) -> Iterator[Finding]:
    """What is said of the column of the captions; what is wrong with it, its rows will say."""
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
    """Rows of a table; a CSV may have fewer, where texts hold line breaks."""
    if path.suffix.lower() == ".json":
        return sum(1 for _ in table.entries())
    lines = count_lines(path)
    return lines - 1 if path.suffix.lower() in (".csv", ".tsv") else lines
