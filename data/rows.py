"""Rows of a data set: from the entries of a table, whatever its format, to captioned pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path

from core.errors import UserError
from core.paths import NotReadable, read_bytes
from core.printable import is_text, quoted
from data.limits import PICTURE_BYTES

# What columns are called, the usual name first.
PICTURE_COLUMNS = ("file_name", "image_path", "image", "filename", "path", "file", "image_id")
CAPTION_COLUMNS = ("text", "caption", "description", "prompt")
USUAL_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif",
)  # fmt: skip
PICTURE_SUFFIXES = (
    *USUAL_SUFFIXES, ".jfif", ".jpe", ".heic", ".heif", ".hif", ".jxl", ".apng", ".mpo", ".dib",
    ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pnm", ".tga", ".qoi", ".pcx", ".sgi",
)  # fmt: skip
UNNAMED = "picture"  # what a picture without a file of its own is called
LOOKED_AT = 100  # entries from whose fields the columns are chosen
NAMES_SHOWN, NAME_SHOWN = 20, 40  # columns in a sentence, and characters of each


@dataclass(frozen=True)
class TableEntry:
    """What a table says in one place, not yet understood: its fields, or why it has none."""

    where: str
    fields: dict
    fault: str | None = None
    breaks_off: bool = False  # the table does, here: what follows is not known


@dataclass(frozen=True)
class Row:
    """One captioned picture as the user wrote it; its content is read when it is wanted."""

    where: str  # as the user would look for it: "metadata.csv, row 41"
    picture: str  # the name of its file
    content: Callable[[], bytes]
    caption: object
    fault: str | None = None  # what is wrong with the row itself, before its picture is looked at
    split: str = "train"  # or "test"
    breaks_off: bool = False  # its table does, here: what follows is not known


def rows_of(
    entries: Iterable[TableEntry],
    table: Path,
    pictures: Path,
    wanted: tuple[str | None, str | None] = (None, None),
    options: tuple[str, str] = ("--image_key", "--caption_key"),
    split: str = "train",
    held_out: tuple[str, ...] = (),
) -> Iterator[Row]:
    """Rows of a table whose file names are relative to the folder `pictures`.

    `wanted`: the columns of pictures and captions; where one is None, the first of the usual
    names that the table has. `held_out`: what names begin with that are not for training. Raises
    `UserError` for a table without rows or without such a column, with the option of `options`
    that names another.
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
    """`wanted`, or the first of the usual names. Raises `UserError` with those there are."""
    names = (wanted,) if wanted else usual
    found = next((name for name in names if name in columns), None)
    if found is None:
        known = ", ".join(str(name) for name in columns) or "none"
        raise UserError(f"{place} has no column {names[0]!r}, only {known}; choose with {option}.")
    return found


def caption_guess(
    columns: Collection[str], captions: Sequence, chosen: str | None, option: str
) -> str | None:
    """A sentence where the column of the captions may be another than the one that was guessed.

    `captions`: some of its rows. None where one was `chosen`, or the guess is as good as sure.
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
    """The name of a picture within its folder, and what is wrong with it."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # catalogues number their pictures
    if value is None or (isinstance(value, str) and not value.strip()):
        return "", f"has no {column!r}: name its picture or delete the row"
    if not isinstance(value, str):
        return "", f"{column!r} is {quoted(value)} and not the name of a file"
    name = value.strip().replace("\\", "/")
    if not is_text(name):
        return name, f"{quoted(name)} holds what is no character; rename the file"
    if "://" in name or name.startswith("data:"):
        return name, f"{quoted(name)} is an address; download the picture and name its file"
    drive = name[1:2] == ":"
    if name.startswith("/") or ".." in name.split("/") or drive:
        if not drive and (inside := _inside(name, folder)):
            return name, f"{quoted(name)} is {quoted(inside)} in this folder; write that"
        return name, f"{quoted(name)} leads out of the folder; name a file within it"
    return name.removeprefix("./"), None


def _inside(name: str, folder: Path) -> str | None:
    """The plain name of what a path leads to in the folder; None where it leads elsewhere."""
    for root in (folder.absolute(), folder.resolve()):
        target = Path(os.path.normpath(root / name))
        if target != root and target.is_relative_to(root):
            return target.relative_to(root).as_posix()
    return None


class ImageBytes:
    """The bytes of a picture in a folder; its suffix may be left out of its name."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name

    def __call__(self) -> bytes:
        """Raises FileNotFoundError, with a hint where only the case of letters differs, and
        `NotReadable` for what is no file."""
        path = self.folder / self.name
        try:
            return content_of(path)
        except ValueError:  # no file can have such a name: a zero byte, half a character
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
    """The bytes of an image file. Raises OSError; `NotReadable` for what is none, or too large."""
    return read_bytes(path, PICTURE_BYTES)


@lru_cache(maxsize=4)  # a folder is listed once, however many of its pictures are missing
def _names_in(folder: Path) -> dict[str, str]:
    """The files of a folder, by their names in lower case."""
    return {path.name.lower(): path.name for path in folder.iterdir()} if folder.is_dir() else {}
