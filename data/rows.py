"""Rows of a data set: entries of a table of any format become captioned pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path

from core.errors import UserError
from core.file_names import PICTURE_SUFFIXES
from core.paths import NotReadable, read_bytes
from core.printable import is_text, quoted
from data.limits import PICTURE_BYTES

# Names of columns, in order of preference.
PICTURE_COLUMNS = ("file_name", "image_path", "image", "filename", "path", "file", "image_id")
CAPTION_COLUMNS = ("text", "caption", "description", "prompt")
UNNAMED = "picture"  # name of a picture embedded in a table
LOOKED_AT = 100  # entries whose fields determine the columns
NAMES_SHOWN, NAME_SHOWN = 20, 40  # columns in a message, and characters of each


@dataclass(frozen=True)
class TableEntry:
    """An uninterpreted entry of a table: its fields, or why it could not be parsed."""

    where: str
    fields: dict
    fault: str | None = None
    breaks_off: bool = False  # the table is truncated here


@dataclass(frozen=True)
class Row:
    """A captioned picture as the user wrote it; its content is read on demand."""

    where: str  # its place in messages: "metadata.csv, row 41"
    picture: str  # file name
    content: Callable[[], bytes]
    caption: object
    fault: str | None = None  # of the row itself, found before its picture is read
    split: str = "train"  # or "test"
    breaks_off: bool = False  # its table is truncated here


def rows_of(
    entries: Iterable[TableEntry],
    table: Path,
    pictures: Path,
    wanted: tuple[str | None, str | None] = (None, None),
    options: tuple[str, str] = ("--image_key", "--caption_key"),
    split: str = "train",
    held_out: tuple[str, ...] = (),
) -> Iterator[Row]:
    """Rows of a table with file names relative to the folder `pictures`.

    `wanted`: names of the image and caption columns; None: the first usual name that the table
    has. `held_out`: prefixes of the file names of held-out pictures. Raises `UserError` for an
    empty table or a missing column, naming the option in `options` to choose another.
    """
    entries = iter(entries)
    first = list(islice(entries, LOOKED_AT))
    if not first:
        raise UserError(f"{table} is empty; give each picture a row.")
    # Single entries may lack fields, and invalid ones have none.
    fields, columns = {name: None for entry in first for name in entry.fields}, ("", "")
    if fields:
        columns = (
            known_column(fields, wanted[0], PICTURE_COLUMNS, str(table), options[0]),
            known_column(fields, wanted[1], CAPTION_COLUMNS, str(table), options[1]),
        )
    for entry in chain(first, entries):
        picture, caption = (entry.fields.get(name) for name in columns)
        name, fault = file_name_of(picture, columns[0], pictures)
        yield Row(
            entry.where,
            name,
            ImageBytes(pictures, name),
            caption,
            entry.fault or fault,
            "test" if name.startswith(held_out) else split,
            entry.breaks_off,
        )


def known_column(
    columns: Iterable[str], wanted: str | None, usual: tuple[str, ...], place: str, option: str
) -> str:
    """`wanted`, or the first usual name there is. Raises `UserError` listing the columns."""
    names = (wanted,) if wanted else usual
    column = next((name for name in names if name in columns), None)
    if column is None:
        known = ", ".join(str(name) for name in columns) or "none"
        raise UserError(f"{place} has no column {names[0]!r}, only {known}; choose with {option}.")
    return column


def caption_guess(
    columns: Collection[str], captions: Sequence, chosen: str | None, option: str
) -> str | None:
    """A warning if the caption column was guessed and another may be meant.

    `captions`: a sample of the guessed column. None if a column was `chosen` or the guess is safe.
    """
    usual = [name for name in CAPTION_COLUMNS if name in columns]
    if chosen or not usual:
        return None
    others = usual[1:]
    if 2 * sum(map(_has_words, captions)) < len(captions):
        others = [str(name)[:NAME_SHOWN] for name in columns if name != usual[0]]
    if not others:
        return None
    more = f" and {len(others) - NAMES_SHOWN} more" if others[NAMES_SHOWN:] else ""
    return (
        f"the captions are those of the column {usual[0]!r}, which was guessed; there is also "
        f"{', '.join(others[:NAMES_SHOWN])}{more}: choose with {option}"
    )


def _has_words(caption: object) -> bool:
    texts = caption if isinstance(caption, list | tuple) else (caption,)
    return any(isinstance(text, str) and any(map(str.isalpha, text)) for text in texts)


def file_name_of(value: object, column: str, folder: Path) -> tuple[str, str | None]:
    """Normalise the file name of a picture; returns it with a fault, or None."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # catalogues use numbers
    if value is None or (isinstance(value, str) and not value.strip()):
        return "", f"has no {column!r}: name its picture or delete the row"
    if not isinstance(value, str):
        return "", f"{column!r} is {quoted(value)} and not the name of a file"
    name = value.strip().replace("\\", "/")
    if not is_text(name):
        return name, f"{quoted(name)} holds an invalid character; rename the file"
    if "://" in name or name.startswith("data:"):
        return name, f"{quoted(name)} is an address; download the picture and name its file"
    drive = name[1:2] == ":"
    if name.startswith("/") or ".." in name.split("/") or drive:
        if not drive and (inside := _inside(name, folder)):
            return name, f"{quoted(name)} is {quoted(inside)} in this folder; write that"
        return name, f"{quoted(name)} leads out of the folder; name a file within it"
    return name.removeprefix("./"), None


def _inside(name: str, folder: Path) -> str | None:
    """The relative path of a file inside the folder; None for paths outside."""
    for root in (folder.absolute(), folder.resolve()):
        target = Path(os.path.normpath(root / name))
        if target != root and target.is_relative_to(root):
            return target.relative_to(root).as_posix()
    return None


class ImageBytes:
    """Reads a picture in a folder; its name may lack the suffix."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name

    def __call__(self) -> bytes:
        """Raises FileNotFoundError, with a hint if only upper and lower case differ, and
        `NotReadable` for special files."""
        path = self.folder / self.name
        try:
            return content_of(path)
        except ValueError:  # an impossible file name: a null byte, a lone surrogate
            raise FileNotFoundError from None
        except (FileNotFoundError, NotReadable) as error:
            names = _names_in(path.parent)
            for suffix in PICTURE_SUFFIXES:
                guess = names.get(path.name.lower() + suffix, "")
                if guess and guess.startswith(path.name):  # A17.JPG for A17, but not for a17
                    return content_of(path.with_name(guess))
            if isinstance(error, NotReadable):
                raise
            other = names.get(path.name.lower())
            hint = f", only {quoted(other)}: upper and lower case differ" if other else ""
            raise FileNotFoundError(hint) from None


def content_of(path: Path) -> bytes:
    """Read an image file. Raises OSError; `NotReadable` for special or too large files."""
    return read_bytes(path, PICTURE_BYTES)


@lru_cache(maxsize=4)  # one listing serves all missing pictures of a folder
def _names_in(folder: Path) -> dict[str, str]:
    """Names in a folder by their lower-case form."""
    return {path.name.lower(): path.name for path in folder.iterdir()} if folder.is_dir() else {}
