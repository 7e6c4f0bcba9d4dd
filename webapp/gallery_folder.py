"""The owner's pictures in a folder: each drawing adds some, and nothing but those is ever shown or
deleted."""

from __future__ import annotations

import heapq
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from itertools import islice
from pathlib import Path

from PIL import Image

from core.bounded_json import loads
from core.errors import UserError
from core.files import NotWritable, remove_leftovers
from core.paths import opened, read_bytes
from sampling.image import Picture
from sampling.image_metadata import request_of
from sampling.output_paths import free_path
from sampling.png_text import NotPNG, TextTooLong, texts
from sampling.request import BOUNDS, Request
from webapp.limits import (
    MAX_GALLERY_BYTES,
    MAX_GALLERY_NAMES,
    MAX_GALLERY_PAGE,
    MAX_GALLERY_SEARCHED,
)

SIDE = 256  # pixels of what the page shows of a picture
SETTINGS = "sd-pokemon"  # the text chunk that only our pictures have
NAME = re.compile(r"\d{8}-\d{6}-\d{6}-[\w .()-]+\.png")  # sorted by name they are by time
NOT_OURS = "There is no such picture in the gallery. It may have been deleted."
UNKEPT = "The picture is not in the gallery ({reason}). Make room there, and draw it again."
UNDELETED = "The picture could not be deleted ({reason})."


@dataclass(frozen=True)
class GalleryImage:
    """A picture in the folder: its file's name, what draws it again, and a look at it."""

    name: str
    request: Request
    small: Image.Image  # RGB


@dataclass(frozen=True)
class GalleryPage:
    """One page of the gallery, the newest first."""

    entries: tuple[GalleryImage, ...]
    number: int  # of the page, from 0
    has_older: bool
    total: int  # files by their names, with none searched for


class Gallery:
    """Threads may add, look and delete at the same time: each file is whole or not there."""

    def __init__(self, folder: str):
        """Makes the folder. Raises UserError where nothing can be kept in it."""
        self._folder = Path(folder)
        self._naming = threading.Lock()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self._folder, "*.png")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"--gallery {folder}: {reason}. Choose another folder.") from error
        if not os.access(self._folder, os.W_OK):
            raise UserError(f"--gallery {folder} cannot be written. Choose another folder.")

    def keep(self, picture: Picture) -> None:
        """Add a picture. Raises UserError where the disk does not take it."""
        moment = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
        try:
            with self._naming:
                picture.save(free_path(self._folder / f"{moment}-{picture.file_name}"))
        except NotWritable as error:
            reason = getattr(error.__cause__, "strerror", None) or error.__cause__
            raise UserError(UNKEPT.format(reason=reason)) from error

    def shelf(self, number: int = 0, wanted: str = "") -> GalleryPage:
        """Page `number`, from 0, of the pictures whose prompts have all of the words `wanted`; the
        last one where it is beyond. What is no picture of ours is passed over."""
        names = self._names()
        found = self._with_words(names, wanted) if wanted.split() else iter(names)
        start, rest = 0, list(islice(found, MAX_GALLERY_PAGE + 1))
        while start < number and len(rest) > MAX_GALLERY_PAGE:
            start += 1
            rest = rest[MAX_GALLERY_PAGE:] + list(islice(found, MAX_GALLERY_PAGE))
        entries = tuple(self._entries(rest[:MAX_GALLERY_PAGE]))
        return GalleryPage(entries, start, len(rest) > MAX_GALLERY_PAGE, len(names))

    def read(self, name: str) -> bytes:
        """The PNG of one of ours. Raises UserError for any other name or file."""
        path = self._path(name)
        try:
            png = read_bytes(path, MAX_GALLERY_BYTES)
            is_ours = SETTINGS in texts(BytesIO(png), {SETTINGS})
        except (OSError, NotPNG, TextTooLong) as error:
            raise UserError(NOT_OURS) from error
        if not is_ours:
            raise UserError(NOT_OURS)
        return png

    def delete(self, name: str) -> None:
        """Delete one of ours. Raises UserError where it is none, or stays."""
        self.read(name)
        try:
            self._path(name).unlink()
        except OSError as error:
            raise UserError(UNDELETED.format(reason=error.strerror)) from error

    def _path(self, name: str) -> Path:
        """Raises UserError for what leads out of the folder."""
        path = self._folder / name if NAME.fullmatch(name) else None
        if path is None or path.is_symlink():
            raise UserError(NOT_OURS)
        return path

    def _names(self) -> list[str]:
        """Those of files that are called as ours are, the newest first; none is opened."""
        try:
            with os.scandir(self._folder) as files:
                ours = (file.name for file in files if _may_be_ours(file))
                return heapq.nlargest(MAX_GALLERY_NAMES, ours)
        except OSError as error:
            raise UserError(f"The gallery cannot be read ({error.strerror}).") from error

    def _with_words(self, names: list[str], wanted: str) -> Iterator[str]:
        parts = wanted.casefold().split()
        for name in names[:MAX_GALLERY_SEARCHED]:
            prompt = self._prompt(name).casefold()
            if prompt and all(part in prompt for part in parts):
                yield name

    def _prompt(self, name: str) -> str:
        """From the head of a file, without its pixels; "" where it is none of ours."""
        try:
            with opened(self._folder / name) as file:
                if os.fstat(file.fileno()).st_size > MAX_GALLERY_BYTES:
                    return ""
                prompt = loads(texts(file, {SETTINGS})[SETTINGS])["prompt"]
        except (OSError, ValueError, LookupError, TypeError):
            return ""
        return prompt if isinstance(prompt, str) else ""

    def _entries(self, names: list[str]) -> Iterator[GalleryImage]:
        for name in names:
            try:
                png = self.read(name)
                yield GalleryImage(name, request_of(png), _small(png))
            except UserError:  # somebody else's, or deleted meanwhile
                continue


def _may_be_ours(file: os.DirEntry) -> bool:
    return bool(NAME.fullmatch(file.name)) and file.is_file(follow_symlinks=False)


def _small(png: bytes) -> Image.Image:
    """A look at it. Raises UserError where they are damaged, or more than is ever drawn."""
    try:
        with Image.open(BytesIO(png), formats=["PNG"]) as image:
            if max(image.size) > BOUNDS["width"][1]:
                raise UserError(NOT_OURS)
            small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(NOT_OURS) from error
    small.thumbnail((SIDE, SIDE))
    return small
