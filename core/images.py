"""Decoding of untrusted images to what the eye sees: upright, sRGB, 8 bits a channel."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageCms

from core.errors import is_ours
from core.image_formats import Unreadable, open_image

ORIENTATION = 0x0112  # the EXIF tag
TURNS = {  # transposition by its value; from 5 on width and height are swapped
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SRGB, LAB = (ImageCms.createProfile(name) for name in ("sRGB", "LAB"))
DEEP = ("I", "F")  # begin the modes of one channel of more than 8 bits
DAMAGED = "cannot be read as a picture; it is damaged or of another kind"
JPEG_QUALITY = 85  # of pictures in pages and reports
TOO_MUCH = "takes more memory than there is; reduce it"

# A large picture is no attack here: what is too large to be read still raises an error.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def rgb_of(content: bytes, formats: Sequence[str], max_pixels: int) -> Image.Image:
    """Decode a file of one of these formats (Pillow's names) to upright RGB.

    Raises `Unreadable`.
    """
    with unreadable_on_error():
        return upright_rgb(decoded(content, formats=formats, max_pixels=max_pixels)[0])


def perceptual_hash(image: Image.Image) -> int:
    """64 bits (unsigned) of low frequencies, few of which change with size and compression: the
    Hamming distance of two hashes, `(a ^ b).bit_count()`, is small for the same picture."""
    import imagehash

    return int(str(imagehash.phash(image)), 16)


@contextmanager
def unreadable_on_error() -> Iterator[None]:
    """Turn whatever Pillow raises in the block into `Unreadable`."""
    try:
        yield
    except Unreadable:
        raise
    except MemoryError as error:
        raise Unreadable(TOO_MUCH) from error
    except Exception as error:  # rare modes and broken tags fail in many ways
        if is_ours(error):
            raise
        raise Unreadable(DAMAGED) from error


def decoded(
    content: bytes,
    max_side: int | None = None,
    formats: Sequence[str] | None = None,
    max_pixels: int | None = None,
) -> tuple[Image.Image, tuple[int, int]]:
    """Decode a picture; returns it with its width and height after orientation.

    A JPEG far larger than `max_side` is reduced while decoding. One of other `formats`, or of more
    than `max_pixels`, is not decoded.

    Raises `Unreadable`.
    """
    if not content:
        raise Unreadable("is an empty file")
    try:
        image = open_image(content, formats)
        size = image.size
        if max_pixels and size[0] * size[1] > max_pixels:
            raise Unreadable(f"has more than {max_pixels / 1e6:.0f} million pixels; reduce it")
        if max_side:
            image.draft(None, (max_side + 1,) * 2)  # larger, so that it is still seen to exceed it
        image.load()
        turn = image.getexif().get(ORIENTATION)
    except Unreadable:
        raise
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise Unreadable(f"has more than {limit:.0f} million pixels; reduce it") from None
    except MemoryError as error:
        raise Unreadable(TOO_MUCH) from error
    except Exception as error:  # what Pillow raises depends on the format and on the damage
        if is_ours(error):
            raise
        if content.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
            raise Unreadable("is a web page, not a picture; download it again") from error
        raise Unreadable(DAMAGED) from error
    return image, size[::-1] if turn in TURNS and turn > 4 else size


def upright_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """Convert to RGB: EXIF orientation applied, transparency composited onto `background`, channels
    reduced to 8 bits, colours converted to sRGB. An image that is so already is not copied.

    Raises `Unreadable` for values that are not colours.
    """
    profile = image.info.get("icc_profile")
    turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    if image.mode.startswith(DEEP):
        image = _in_8_bits(image)
    if turn is not None:
        image = image.transpose(turn)
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
        image = image.convert("RGB")
    if image.mode == "LAB":
        return _in_srgb(image, LAB)
    if profile and image.mode in ("RGB", "CMYK"):
        try:
            return _in_srgb(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        except (ImageCms.PyCMSError, OSError):
            return image.convert("RGB")  # an invalid profile is ignored
    return image if image.mode == "RGB" else image.convert("RGB")


def _in_srgb(image: Image.Image, profile) -> Image.Image:
    return ImageCms.buildTransform(profile, SRGB, image.mode, "RGB").apply(image)


def jpeg_of(image: Image.Image, max_side: int | None = None) -> bytes:
    """A picture for a page as a JPEG file of its pixels alone: no colour profile, no comment.

    `max_side`: a larger one is reduced to it; `image` itself stays as it is.
    """
    if max_side:
        image = image.copy()
        image.thumbnail((max_side, max_side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, icc_profile=b"", comment=b"")
    return buffer.getvalue()


def _in_8_bits(image: Image.Image) -> Image.Image:
    """A channel of integers or floats as L, or as LA where one value is transparent.

    The file does not say which value is white: the smallest of 255 and 65,535, of floats also 1,
    that is at least the maximum.
    """
    numbers = np.asarray(image)  # H,W of uint16, int32 or float32
    low, high = numbers.min(), numbers.max()
    if not (low >= 0 and high <= 65_535):  # also False for NaN
        raise Unreadable(
            f"holds numbers from {low:g} to {high:g}, which are no colours; bring them to 0 to 255"
        )
    whites = (1, 255, 65_535) if image.mode == "F" else (255, 65_535)
    white = next(each for each in whites if high <= each)
    # Rounded down, as Pillow converts 16-bit colour channels.
    scaled = np.multiply(numbers, 255 / white, dtype=np.float32, casting="unsafe")
    grey = Image.fromarray((scaled + np.float32(1e-3)).astype(np.uint8))
    if isinstance(clear := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(numbers == clear, 0, 255).astype(np.uint8)))
    return grey
