"""The gallery: a folder that keeps every drawn picture. Other files in it are never shown or
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
from sampling.image_metadata import KEYWORD, init_image_of, request_from, settings_of
from sampling.output_paths import free_path
from sampling.png_text import NotPNG, TextTooLong, texts
from sampling.request import BOUNDS, Request
from webapp.limits import (
    MAX_GALLERY_BYTES,
    MAX_GALLERY_NAMES,
    MAX_GALLERY_PAGE,
    MAX_GALLERY_SEARCHED,
)

THUMBNAIL_SIDE = 256  # pixels

NAME = re.compile(r"\d{8}-\d{6}-\d{6}-[\w .()-]+\.png")  # sorted by name means by time
NOT_OURS = "There is no such picture in the gallery. It may have been deleted."
NOT_SAVED = "The picture is not in the gallery ({reason}). Make room there, and draw it again."
NOT_DELETED = "The picture could not be deleted ({reason})."


@dataclass(frozen=True)
class GalleryImage:
    """A picture in the folder: its file name, the request that draws it again, and a thumbnail."""

    name: str
    request: Request
    model: str  # that drew it; empty where it does not say
    init_image: str | None  # SHA-256 of what it started from
    thumbnail: Image.Image  # RGB


@dataclass(frozen=True)
class GalleryPage:
    """One page of the gallery, the newest picture first."""

    entries: tuple[GalleryImage, ...]
    number: int  # of the page, from 0
    has_older: bool
    total: int  # pictures in the folder, judged by their names and whatever is searched for


class Gallery:
    """The folder. Thread-safe: a picture's file is complete or absent at any time."""

    def __init__(self, folder: str):
        """Creates the folder. Raises UserError where it cannot be written."""
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
            raise UserError(NOT_SAVED.format(reason=reason)) from error

    def page(self, number: int = 0, search: str = "") -> GalleryPage:
        """Page `number`, from 0, of the pictures whose prompts contain all words of `search`; the
        last page where there are fewer. Files that are not ours are skipped."""
        names = self._names()
        found = self._matching(names, search) if search.split() else iter(names)
        start, rest = 0, list(islice(found, MAX_GALLERY_PAGE + 1))
        while start < number and len(rest) > MAX_GALLERY_PAGE:
            start += 1
            rest = rest[MAX_GALLERY_PAGE:] + list(islice(found, MAX_GALLERY_PAGE))
        entries = tuple(self._entries(rest[:MAX_GALLERY_PAGE]))
        return GalleryPage(entries, start, len(rest) > MAX_GALLERY_PAGE, len(names))

    def read(self, name: str) -> bytes:
        """The PNG file of a picture. Raises UserError for any other name or file."""
        path = self._path(name)
        try:
            png = read_bytes(path, MAX_GALLERY_BYTES)
            is_ours = KEYWORD in texts(BytesIO(png), {KEYWORD})
        except (OSError, NotPNG, TextTooLong) as error:
            raise UserError(NOT_OURS) from error
        if not is_ours:
            raise UserError(NOT_OURS)
        return png

    def delete(self, name: str) -> None:
        """Delete a picture. Raises UserError where there is none of that name, or it cannot be
        deleted."""
        self.read(name)
        try:
            self._path(name).unlink()
        except OSError as error:
            raise UserError(NOT_DELETED.format(reason=error.strerror)) from error

    def _path(self, name: str) -> Path:
        """Raises UserError for a name that is not a picture's, or a link."""
        path = self._folder / name if NAME.fullmatch(name) else None
        if path is None or path.is_symlink():
            raise UserError(NOT_OURS)
        return path

    def _names(self) -> list[str]:
        """Names of files that are named like our pictures, the newest first. None is opened."""
        try:
            with os.scandir(self._folder) as files:
                ours = (file.name for file in files if _may_be_ours(file))
                return heapq.nlargest(MAX_GALLERY_NAMES, ours)
        except OSError as error:
            raise UserError(f"The gallery cannot be read ({error.strerror}).") from error

    def _matching(self, names: list[str], search: str) -> Iterator[str]:
        words = search.casefold().split()
        for name in names[:MAX_GALLERY_SEARCHED]:
            prompt = self._prompt(name).casefold()
            if prompt and all(word in prompt for word in words):
                yield name

    def _prompt(self, name: str) -> str:
        """The prompt in a file's text chunks, read without its pixels; "" where the file is not
        ours."""
        try:
            with opened(self._folder / name) as file:
                if os.fstat(file.fileno()).st_size > MAX_GALLERY_BYTES:
                    return ""
                found = texts(file, {KEYWORD})
            settings = loads(found.get(KEYWORD, ""))
        except (OSError, ValueError):  # also NotPNG and TextTooLong
            return ""
        prompt = settings.get("prompt") if isinstance(settings, dict) else None
        return prompt if isinstance(prompt, str) else ""

    def _entries(self, names: list[str]) -> Iterator[GalleryImage]:
        for name in names:
            try:
                png = self.read(name)
                settings = settings_of(png)
                yield GalleryImage(
                    name,
                    request_from(settings),
                    str(settings.get("model", "")),
                    init_image_of(settings),
                    _thumbnail(png),
                )
            except UserError:  # not ours, or deleted meanwhile
                continue


def _may_be_ours(file: os.DirEntry) -> bool:
    return bool(NAME.fullmatch(file.name)) and file.is_file(follow_symlinks=False)


def _thumbnail(png: bytes) -> Image.Image:
    """Raises UserError where the file is damaged, or larger than any picture that is drawn."""
    try:
        with Image.open(BytesIO(png), formats=["PNG"]) as image:
            if max(image.size) > BOUNDS["width"][1]:
                raise UserError(NOT_OURS)
            small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(NOT_OURS) from error
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return small
