"""What a data set becomes: a source of rows; and how it was asked to be read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.index import Finding
from data.rows import Row


@dataclass(frozen=True)
class ReadOptions:
    """How a source is to be read; None stands for what is usual."""

    image_column: str | None = None
    caption_column: str | None = None
    images: Path | None = None  # folder of the pictures; None: that of the table
    encoding: str = "utf-8"
    config_name: str | None = None  # configuration of a hub data set
    cache_dir: str | None = None  # where what is fetched from the hub is kept
    strict: bool = False  # for training: metadata have the columns of an ImageFolder

    @property
    def column_options(self) -> tuple[str, str]:
        """The options that name the columns of pictures and captions."""
        return (
            ("--image_column", "--caption_column") if self.strict
            else ("--image_key", "--caption_key")
        )  # fmt: skip

    @property
    def advice(self) -> str:
        """What one does with a file or folder for it to be read instead."""
        return "give {} to prepare_dataset.py as SOURCE" if self.strict else "give {} as SOURCE"

    @property
    def caption_key(self) -> str | None:
        """The key of the captions in JSON files, where one was chosen; training's column "text"
        was not."""
        return None if self.strict and self.caption_column == "text" else self.caption_column


@dataclass(frozen=True)
class Source:
    """A data set as it was found. `rows()` starts a new pass over it."""

    name: str  # what the user calls it
    rows: Callable[[], Iterator[Row]]
    total: int | None = None  # rows, where they can be counted without reading them
    folders: tuple[tuple[Path, str], ...] = ()  # where pictures lie, with their split
    pairs: bool = False  # captions in text files beside the pictures
    findings: tuple[Finding, ...] = ()  # on the form itself
    held_out: bool = False  # a part of it is not for training
    files: Callable[[], Iterable[Path]] = tuple  # what the data consist of
    identity: str = ""  # beside the files: what else tells these data from others
    close: Callable[[], None] = field(default=lambda: None)

    def stamp(self) -> str:
        """Changes when a file of the source does."""
        return stamp_of(self.files(), self.identity)


def stamp_of(files: Iterable[Path], identity: str = "") -> str:
    """Changes when one of the files does."""
    digest = hashlib.sha256(identity.encode())
    for path in files:
        about = path.stat()
        digest.update(
            f"{path}\0{about.st_size}\0{about.st_mtime_ns}\n".encode(errors="surrogateescape")
        )
    return digest.hexdigest()[:16]
