"""The init image of image-to-image, within bounds that hold for page, APIs and command alike."""

from __future__ import annotations

import hashlib
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from PIL import Image, ImageOps

from core.errors import UserError
from core.image_formats import Unreadable
from core.images import rgb_of
from core.paths import fault_of, read_bytes, size

MAX_INIT_BYTES = 5 * 2**20
MAX_INIT_PIXELS = 2**25  # 5792 x 5792
MAX_INIT_CHARACTERS = 4 * -(-MAX_INIT_BYTES // 3)  # of the file in base64
MAX_LOOKED_AT = 8  # decoded at once, or waiting for it
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")  # as Pillow has them

_decoding = threading.Lock()  # one at a time: a picture may take 1 GB on its way to RGB
_places = threading.BoundedSemaphore(MAX_LOOKED_AT)


class TooManyPictures(UserError):
    """Refused only for now: the same picture may be accepted a moment later."""


@dataclass(frozen=True)
class InitImage:
    """The file of a picture. It is decoded once to validate it, and again when it is drawn, so that
    a queued request stays small.

    Raises UserError for a file that is no picture or exceeds the bounds.
    """

    content: bytes = field(repr=False)

    def __post_init__(self):
        if not isinstance(self.content, bytes):
            raise UserError("The init image is no file. Give the bytes of one.")
        if len(self.content) > MAX_INIT_BYTES:
            raise UserError(f"The init image has more than {size(MAX_INIT_BYTES)}. Reduce it.")
        with _place():
            self.rgb()

    @classmethod
    def from_file(cls, path: str | Path) -> InitImage:
        """Raises UserError that names the file."""
        try:
            content = read_bytes(path, MAX_INIT_BYTES)
        except (OSError, ValueError) as error:  # ValueError: a null in the name
            fault = fault_of(error) if isinstance(error, OSError) else "is no file's name"
            raise UserError(f"The init image '{path}' {fault}. Give another file.") from error
        try:
            return cls(content)
        except UserError as error:
            raise UserError(f"'{path}': {error}") from error

    @classmethod
    def from_base64(cls, text: object) -> InitImage:
        """Raises UserError for anything but a picture's file in base64 (RFC 4648, section 4)."""
        if not isinstance(text, str):
            kind = type(text).__name__
            raise UserError(f"The init image is of type {kind}. Give its file in base64.")
        if len(text) > MAX_INIT_CHARACTERS:
            raise UserError(f"The init image has more than {size(MAX_INIT_BYTES)}. Reduce it.")
        try:
            content = b64decode(text, validate=True)
        except ValueError as error:
            raise UserError("The init image is not base64. Give its file so encoded.") from error
        return cls(content)

    @cached_property
    def sha256(self) -> str:
        """Digest of the file, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    def fitted(self, width: int, height: int) -> Image.Image:
        """The picture in RGB, upright and resized, cropped to the middle of its longer side."""
        return ImageOps.fit(self.rgb(), (width, height), Image.Resampling.LANCZOS)

    def rgb(self) -> Image.Image:
        """The picture in RGB, upright. Raises UserError."""
        try:
            with _decoding:
                return rgb_of(self.content, FORMATS, MAX_INIT_PIXELS)
        except Unreadable as error:
            raise UserError(f"The init image {error}. PNG, JPEG or WebP will do.") from error


@contextmanager
def _place() -> Iterator[None]:
    """One of the places for pictures being decoded. Raises TooManyPictures if all are taken."""
    if not _places.acquire(blocking=False):
        raise TooManyPictures("Too many pictures are being looked at. Try again in a moment.")
    try:
        yield
    finally:
        _places.release()
