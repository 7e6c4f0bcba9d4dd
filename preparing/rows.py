"""Rows as users write them: JSON lines, CSV, JSON catalogues. Read one at a time, never all."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, count, islice
from pathlib import Path

from errors import UserError, reason_of
from preparing.ledger import readable

# What columns are called, the usual name first.
PICTURE_COLUMNS = ("file_name", "image_path", "image", "filename", "path", "file", "image_id")
CAPTION_COLUMNS = ("text", "caption", "description", "prompt")
PICTURE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif",
)  # fmt: skip
LOOKED_AT = 100  # entries from whose fields the columns are chosen
MANIFEST = ".prepared.json"  # of a data set that prepare_dataset.py wrote; hidden: it is no data
SPARE = "\0spare"  # csv's name for cells beyond the header's last


@dataclass(frozen=True)
class Row:
    """One captioned picture as the user wrote it; its content is read when it is wanted."""

    where: str  # as the user would look for it: "metadata.csv, row 41"
    picture: str  # the name of its file
    content: Callable[[], bytes]
    caption: object
    fault: str | None = None  # what is wrong with the row itself, before its picture is looked at
    split: str = "train"  # or "test"


@dataclass(frozen=True)
class Entry:
    """What a table says in one place, not yet understood: its fields, or why it has none."""

    where: str
    fields: dict
    fault: str | None = None


def json_lines(path: Path, encoding: str = "utf-8") -> Iterator[Entry]:
    """An entry for each line that is not blank."""
    for number, line in enumerate(_lines(path, encoding), 1):
        if not line.strip():
            continue
        where = f"{path.name}, row {number}"
        if fault := _undecodable(line, encoding):
            yield Entry(where, {}, fault)
            continue
        try:
            fields = json.loads(line.strip())
        except (ValueError, RecursionError) as error:
            reason = str(error).replace("line 1 ", "")
            yield Entry(where, {}, f"line {number} is not a JSON object: {reason}")
            continue
        fault = None if isinstance(fields, dict) else f"line {number} is not a JSON object"
        yield Entry(where, fields if fault is None else {}, fault)


def csv_rows(path: Path, encoding: str = "utf-8") -> Iterator[Entry]:
    """An entry for each row below the header; commas, semicolons or tabs between the cells."""
    with open(path, encoding=_encoding(path, encoding), errors="surrogateescape") as file:
        header = file.readline()
    mark = max(",;\t", key=header.count)
    lines = _lines(path, encoding)
    rows = csv.DictReader(lines, delimiter=mark, restkey=SPARE)
    for number in count(1):
        try:
            fields = next(rows, None)
        except csv.Error as error:  # from here on nobody knows where a row ends
            fault = f"cannot be read ({error}), nor what follows; is a double quote left open?"
            yield Entry(f"{path.name}, row {number}", {}, fault)
            return
        if fields is None:
            return
        fault = _undecodable("".join(str(value) for value in fields.values()), encoding)
        if spare := fields.pop(SPARE, None):
            fault = fault or (
                f"has {len(spare)} more cells than the header; put a text that holds {mark!r} "
                "in double quotes"
            )
        yield Entry(f"{path.name}, row {number}", fields, fault)


def catalogue(path: Path, encoding: str = "utf-8") -> Iterator[Entry]:
    """Entries of a JSON file: a list of objects, or an object of objects, texts or lists of them.

    Where the entries are named, as in {"dress-7": {...}}, the name stands for a missing picture.
    Where the file breaks off, the last entry says so. Raises `UserError` for what is no JSON.
    """
    import ijson

    with open(path, "rb") as file:
        start = file.read(3)
        file.seek(begin := 3 if start == b"\xef\xbb\xbf" else 0)
        first = None
        try:
            first = next((event for _, event, _ in ijson.parse(file)), None) if start else None
            file.seek(begin)
            if first == "start_array":
                for number, value in enumerate(ijson.items(file, "item", use_float=True), 1):
                    yield _entry(f"{path.name}, entry {number}", value)
            elif first == "start_map":
                for name, value in ijson.kvitems(file, "", use_float=True):
                    yield from _named(path.name, name, value)
            else:
                raise UserError(f"{path} is neither a list nor an object of entries.")
        except ijson.JSONError as error:
            reason = reason_of(error)
            if first is None:
                raise UserError(f"{path} is no JSON ({reason}); mend the file.") from error
            fault = f"is no whole JSON ({reason}); mend the file, what follows cannot be read"
            yield Entry(path.name, {}, fault)


def _named(file: str, name: str, value: object) -> Iterator[Entry]:
    if isinstance(value, list):
        for number, item in enumerate(value, 1):
            yield _entry(f"{file}, {name!r} entry {number}", item)
    elif isinstance(value, str):
        yield Entry(f"{file}, entry {name!r}", {"image_id": name, "text": value})
    else:
        entry = _entry(f"{file}, entry {name!r}", value)
        yield Entry(entry.where, {"image_id": name, **entry.fields}, entry.fault)


def _entry(where: str, value: object) -> Entry:
    if isinstance(value, dict):
        return Entry(where, value)
    return Entry(where, {}, f"is {json.dumps(value)[:40]} and not an object of fields")


def _lines(path: Path, encoding: str) -> Iterator[str]:
    with open(
        path, encoding=_encoding(path, encoding), errors="surrogateescape", newline=""
    ) as file:
        yield from file


def _encoding(path: Path, encoding: str) -> str:
    """`encoding`, unless the file begins with a mark that tells another."""
    with open(path, "rb") as file:
        start = file.read(3)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    return "utf-8-sig" if start == b"\xef\xbb\xbf" else encoding


def _undecodable(text: str, encoding: str) -> str | None:
    """A sentence where bytes of `text` are no characters; they were read as lone surrogates."""
    for character in text:
        if "\udc80" <= character <= "\udcff":
            byte = ord(character) - 0xDC00
            return (
                f"is not in {encoding.upper()} (byte 0x{byte:02x}); save the file as UTF-8 or "
                "name its --encoding, such as latin-1"
            )
    return None


TABLES = {".jsonl": json_lines, ".csv": csv_rows, ".json": catalogue}


def rows_of(
    entries: Iterable[Entry],
    table: Path,
    pictures: Path,
    wanted: tuple[str | None, str | None] = (None, None),
    options: tuple[str, str] = ("--image_key", "--caption_key"),
    split: str = "train",
) -> Iterator[Row]:
    """Rows of a table whose file names are relative to the folder `pictures`.

    `wanted`: the columns of pictures and captions; where one is None, the first of the usual
    names that the table has. Raises `UserError` for a table without rows or without such a column,
    with the option of `options` that names another.
    """
    entries = iter(entries)
    first = list(islice(entries, LOOKED_AT))
    if not first:
        raise UserError(f"{table} is empty; give each picture a row.")
    # Any one of them may lack a field, and a broken one has none.
    fields, columns = {name: None for entry in first for name in entry.fields}, ("", "")
    if fields:
        columns = (
            known_column(fields, wanted[0], PICTURE_COLUMNS, str(table), options[0]),
            known_column(fields, wanted[1], CAPTION_COLUMNS, str(table), options[1]),
        )
    for entry in chain(first, entries):
        picture, caption = (entry.fields.get(name) for name in columns)
        name, fault = _file_name(picture, columns[0])
        yield Row(
            entry.where,
            name,
            _Content(pictures, name),
            caption,
            entry.fault or fault,
            split,
        )


def known_column(
    columns: Iterable[str], wanted: str | None, usual: tuple[str, ...], place: str, option: str
) -> str:
    """`wanted`, or the first of the usual names. Raises `UserError` with those there are."""
    names = (wanted,) if wanted else usual
    found = next((name for name in names if name in columns), None)
    if found is None:
        known = ", ".join(str(name) for name in columns) or "none"
        raise UserError(f"{place} has no column {names[0]!r}, only {known}; choose with {option}.")
    return found


def _file_name(value: object, column: str) -> tuple[str, str | None]:
    """The name of a picture within its folder, and what is wrong with it."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # catalogues number their pictures
    if value is None or (isinstance(value, str) and not value.strip()):
        return "", f"has no {column!r}: name its picture or delete the row"
    if not isinstance(value, str):
        return "", f"{column!r} is {value!r} and not the name of a file"
    name = value.strip().replace("\\", "/")
    if readable(name) != name:
        return name, f"{readable(name)!r} holds what is no character; rename the file"
    if "://" in name or name.startswith("data:"):
        return name, f"{name!r} is an address; download the picture and name its file"
    if name.startswith("/") or ".." in name.split("/") or name[1:2] == ":":
        return name, f"{name!r} leads out of the folder; name a file within it"
    return name.removeprefix("./"), None


class _Content:
    """The bytes of a picture in a folder; its suffix may be left out of its name."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name

    def __call__(self) -> bytes:
        """Raises FileNotFoundError, with a hint where only the case of letters differs."""
        path = self.folder / self.name
        try:
            return path.read_bytes()
        except ValueError:  # no file can have such a name: a zero byte, half a character
            raise FileNotFoundError from None
        except (FileNotFoundError, IsADirectoryError):
            names = _names_in(path.parent)
            for suffix in PICTURE_SUFFIXES:
                guess = names.get(path.name.lower() + suffix, "")
                if guess and guess.startswith(path.name):  # A17.JPG for A17, but not for a17
                    return path.with_name(guess).read_bytes()
            other = names.get(path.name.lower())
            hint = f", only {other!r}: upper and lower case differ" if other else ""
            raise FileNotFoundError(hint) from None


@lru_cache(maxsize=4)  # a folder is listed once, however many of its pictures are missing
def _names_in(folder: Path) -> dict[str, str]:
    """The files of a folder, by their names in lower case."""
    return {path.name.lower(): path.name for path in folder.iterdir()} if folder.is_dir() else {}


def text_pairs(folder: Path, encoding: str = "utf-8") -> Iterator[Row]:
    """Pictures with a text file of the same name beside them, in the order of their names."""
    for path in files_below(folder):
        if path.suffix.lower() in PICTURE_SUFFIXES:
            name = path.relative_to(folder).as_posix()
            note = path.with_suffix(".txt")
            if note.is_file():
                text = "".join(_lines(note, encoding))
                fault = _undecodable(text, encoding)
                caption = " ".join(text.split())
                yield Row(f"{name}, caption {note.name}", name, path.read_bytes, caption, fault)
            else:
                fault = f"has no caption file {note.name!r}; write one or move the picture away"
                yield Row(name, name, path.read_bytes, None, fault)


def files_below(folder: Path) -> Iterator[Path]:
    """All files of a folder and its folders in the order of their names.

    Hidden ones are left out, and folders that prepare_dataset.py wrote beside their source.
    """
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)  # names alone: there may be a million
    for name in names:
        if name.startswith(".") or name == "__MACOSX":
            continue
        path = folder / name
        if path.is_dir():
            if not (path / MANIFEST).exists():
                yield from files_below(path)
        elif path.is_file():
            yield path
