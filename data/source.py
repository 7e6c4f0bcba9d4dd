"""Source: a data set as a stream of rows; and ReadOptions: how to read it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.index import Finding
from data.rows import Row


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading a data set; None: the default."""

    image_column: str | None = None
    caption_column: str | None = None
    images: Path | None = None  # folder of the pictures; None: that of the table
    encoding: str = "utf-8"
    config_name: str | None = None  # configuration of a hub data set
    cache_dir: str | None = None  # of downloads from the hub
    uncaptioned: bool = False  # pictures of which nothing tells are rows as well
    strict: bool = False  # for training: metadata need the columns of an ImageFolder

    @property
    def column_options(self) -> tuple[str, str]:
        """Command-line options that name the image and caption columns."""
        return (
            ("--image_column", "--caption_column") if self.strict
            else ("--image_key", "--caption_key")
        )  # fmt: skip

    @property
    def advice(self) -> str:
        """Template of advice on how to have a file or folder read instead."""
        return "give {} to prepare_dataset.py as SOURCE" if self.strict else "give {} as SOURCE"

    @property
    def caption_key(self) -> str | None:
        """The chosen key of captions in JSON files; training's default, "text", does not count."""
        return None if self.strict and self.caption_column == "text" else self.caption_column


@dataclass(frozen=True)
class Source:
    """An open data set; each call of `rows()` reads it from the start."""

    name: str  # as the user gave it
    rows: Callable[[], Iterator[Row]]
    total: int | None = None  # rows, if they can be counted cheaply
    folders: tuple[tuple[Path, str], ...] = ()  # of pictures, with their split
    pairs: bool = False  # captions are in sidecar files
    findings: tuple[Finding, ...] = ()  # about the data set as a whole
    held_out: bool = False  # it has a held-out split
    files: Callable[[], Iterable[Path]] = tuple  # all files of the data
    identity: str = ""  # of data that are not in files
    close: Callable[[], None] = field(default=lambda: None)

    def stamp(self) -> str:
        """Fingerprint that changes when a file of the source does."""
        return stamp_of(self.files(), self.identity)


def stamp_of(files: Iterable[Path], identity: str = "") -> str:
    """Fingerprint of files by name, size and modification time."""
    digest = hashlib.sha256(identity.encode())
    for path in files:
        about = path.stat()
        digest.update(
            f"{path}\0{about.st_size}\0{about.st_mtime_ns}\n".encode(errors="surrogateescape")
        )
    return digest.hexdigest()[:16]
