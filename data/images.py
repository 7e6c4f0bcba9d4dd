"""Source pictures and their prepared files: upright, RGB, within a maximum size."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from core.errors import UserError, is_ours, system_reason_of
from core.image_formats import Unreadable
from core.images import (
    ORIENTATION,
    TURNS,
    decoded,
    unreadable_on_error,
    upright_rgb,
)

SUFFIXES = {"jpeg": ".jpg", "webp": ".webp", "png": ".png"}
FORMATS = ("keep", *SUFFIXES)  # keep: that of the source; others than these become PNG
NEARLY_BLACK = 4096  # of 65,535: what 12 bits hold


class ImageFile(NamedTuple):
    """An encoded picture and its suffix."""

    content: bytes
    suffix: str


@dataclass(frozen=True)
class ImageFormat:
    """Size and encoding of prepared pictures."""

    max_side: int = 1024
    format: str = "keep"
    quality: int = 95
    background: str = "white"


@dataclass(frozen=True)
class SourceImage:
    """A decoded source picture and its prepared file."""

    size: tuple[int, int]  # width and height once it is upright, before it is reduced
    frames: int
    rgb: Image.Image
    note: str | None  # a warning
    file: ImageFile | None  # None where nothing is to be written


def opened(content: bytes, shape: ImageFormat | None = None) -> SourceImage:
    """Decode a picture to upright RGB and, with a `shape`, encode its prepared file.

    Raises `Unreadable`.
    """
    image, size = decoded(content, shape.max_side if shape else None)
    with unreadable_on_error():
        count, note = frames(image), _note_on_depth(image)
        rgb, file = written(image, content, shape) if shape else (upright_rgb(image), None)
    return SourceImage(size, count, rgb, note, file)


def read_again(name: str, content: Callable[[], bytes], digest: bytes | None = None) -> Image.Image:
    """Decode a picture that was checked before to upright RGB; `digest`: SHA-256 of its file then.

    Raises `UserError` if it is missing, damaged or changed.
    """
    try:
        file = content()
        if digest and hashlib.sha256(file).digest() != digest:
            raise Unreadable("has changed")
        return upright_rgb(decoded(file)[0])
    except Unreadable as error:
        reason = str(error)
    except FileNotFoundError:
        reason = "is gone"
    except Exception as error:  # archives, tables and file systems have errors of their own
        if is_ours(error):
            raise
        reason = f"cannot be read ({system_reason_of(error)})"
    raise UserError(
        f"{name}, which was there when the data were checked, {reason}; put it back as it was, or "
        "leave it out and start again."
    )


def _note_on_depth(image: Image.Image) -> str | None:
    """A warning if a 16-bit picture uses so few values that it may be of 8 or 12 bits."""
    if not image.mode.startswith("I;16"):
        return None
    high = int(np.asarray(image).max())
    if 0 < high <= 255:
        return f"of 16 bits no number is above {high}: white is taken to be 255"
    if high < NEARLY_BLACK:
        return f"of 16 bits no number is above {high:,}: it is nearly black; brighten it"
    return None


def written(
    image: Image.Image, content: bytes, shape: ImageFormat
) -> tuple[Image.Image, ImageFile]:
    """The picture reduced to `shape`, and its file; a file that already complies is kept unchanged.

    `image` may be modified in place.
    """
    own = "jpeg" if image.format == "MPO" else (image.format or "").lower()
    kind = shape.format if shape.format != "keep" else own if own in SUFFIXES else "png"
    as_it_is = (
        own == kind
        and image.mode == "RGB"
        and max(image.size) <= shape.max_side
        and not {"exif", "icc_profile", "transparency"} & image.info.keys()
        and image.getexif().get(ORIENTATION) not in TURNS  # it may be stored in XMP
        and frames(image) == 1
    )
    rgb = upright_rgb(image, shape.background)
    if as_it_is:
        return rgb, ImageFile(content, SUFFIXES[kind])
    if max(rgb.size) > shape.max_side:
        rgb.thumbnail((shape.max_side, shape.max_side), Image.Resampling.LANCZOS)
    return rgb, ImageFile(encoded(rgb, kind, shape.quality), SUFFIXES[kind])


def encoded(image: Image.Image, format: str, quality: int) -> bytes:
    """Encode a picture without metadata; JPEG with full chroma resolution."""
    options = {
        "jpeg": {"quality": quality, "subsampling": 0},
        "webp": {"quality": quality},
        "png": {},
    }[format]
    buffer = io.BytesIO()
    image.save(buffer, format, icc_profile=b"", comment=b"", **options)
    return buffer.getvalue()


def frames(image: Image.Image) -> int:
    """Number of frames of an animation. Phones embed a second picture in a JPEG (MPO): 1."""
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def small(image: Image.Image) -> Image.Image:
    """Reduce a picture to a shorter side of 128 to 255 pixels."""
    return image.reduce(max(1, min(image.size) // 128))


def mean_colour(image: Image.Image) -> int:
    """Mean colour as 0xRRGGBB."""
    pixel = np.asarray(image.resize((1, 1), Image.Resampling.BOX))[0, 0]
    red, green, blue = map(int, pixel)
    return red << 16 | green << 8 | blue
