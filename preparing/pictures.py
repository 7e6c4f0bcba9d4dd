"""Pictures as they come and as they should be: upright, RGB, not too large."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

from errors import UserError, reason_of
from preparing.formats import Unreadable, open_image

SUFFIXES = {"jpeg": ".jpg", "webp": ".webp", "png": ".png"}
FORMATS = ("keep", *SUFFIXES)  # keep: as it comes; what is none of the three becomes PNG
ORIENTATION = 0x0112  # the EXIF tag
TURNS = {  # what its values ask for; from 5 on the sides are swapped
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
NEARLY_BLACK = 4096  # of 65,535: what 12 bits hold

# A large picture is no attack here: what is too large to be read still raises an error.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


DAMAGED = "cannot be read as a picture; it is damaged or of another kind"
TOO_MUCH = "takes more memory than there is; reduce it"


class File(NamedTuple):
    """A picture as it is written."""

    content: bytes
    suffix: str


@dataclass(frozen=True)
class Shape:
    """How prepared pictures are written."""

    max_side: int = 1024
    format: str = "keep"
    quality: int = 95
    background: str = "white"


@dataclass(frozen=True)
class Picture:
    """A picture as it was found and as it is prepared."""

    size: tuple[int, int]  # width and height once it is upright, before it is reduced
    frames: int
    rgb: Image.Image
    note: str | None  # what may have been meant otherwise
    file: File | None  # None where nothing is to be written


def opened(content: bytes, shape: Shape | None = None) -> Picture:
    """The picture in a file, upright, in RGB and, with a `shape`, as it is to be written.

    Raises `Unreadable`.
    """
    image, size = decoded(content, shape.max_side if shape else None)
    try:
        count, note = frames(image), _note_on_depth(image)
        rgb, file = written(image, content, shape) if shape else (upright_rgb(image), None)
    except Unreadable:
        raise
    except MemoryError as error:
        raise Unreadable(TOO_MUCH) from error
    except Exception as error:  # rare modes and broken tags fail in many ways
        raise Unreadable(DAMAGED) from error
    return Picture(size, count, rgb, note, file)


def decoded(content: bytes, max_side: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """The picture in a file, and its width and height once it is upright.

    The picture is whole, but a JPEG far larger than `max_side` is reduced on reading.

    Raises `Unreadable`.
    """
    if not content:
        raise Unreadable("is an empty file")
    try:
        image = open_image(content)
        size = image.size
        if max_side:
            image.draft(None, (max_side + 1,) * 2)  # so that it still shows that it was larger
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
        if content.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
            raise Unreadable("is a web page, not a picture; download it again") from error
        raise Unreadable(DAMAGED) from error
    return image, size[::-1] if turn in TURNS and turn > 4 else size


def read_again(name: str, content: Callable[[], bytes], digest: bytes | None = None) -> Image.Image:
    """A picture that was checked before, upright and in RGB; `digest`: SHA-256 of its file then.

    Raises `UserError` that names it where it is not there any more, or not as it was.
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
        reason = f"cannot be read ({getattr(error, 'strerror', None) or reason_of(error)})"
    raise UserError(
        f"{name}, which was there when the data were checked, {reason}; put it back as it was, or "
        "leave it out and start anew."
    )


def upright_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """RGB as the eye sees it: EXIF rotation applied, transparency put on `background`, channels
    reduced to 8 bits, colours of another profile brought to sRGB. What is so already is not copied.

    Raises `Unreadable` for numbers that are no colours.
    """
    profile = image.info.get("icc_profile")
    turn = TURNS.get(image.getexif().get(ORIENTATION))
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
        return ImageCms.profileToProfile(image, LAB, SRGB, outputMode="RGB")
    if profile and image.mode in ("RGB", "CMYK"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(image, source, SRGB, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            return image.convert("RGB")  # a broken profile is as good as none
    return image if image.mode == "RGB" else image.convert("RGB")


def _in_8_bits(image: Image.Image) -> Image.Image:
    """One channel of integers or fractions as L, or LA where one number is transparent.

    White is 65,535, or less where all numbers are: 255, and of fractions 1. The file does not say.
    """
    numbers = np.asarray(image)  # H,W of uint16, int32 or float32
    low, high = numbers.min(), numbers.max()
    if not (low >= 0 and high <= 65_535):  # nor are they where one is no number
        raise Unreadable(
            f"holds numbers from {low:g} to {high:g}, which are no colours; bring them to 0 to 255"
        )
    whites = (1, 255, 65_535) if image.mode == "F" else (255, 65_535)
    white = next(each for each in whites if high <= each)
    # Rounded down, as Pillow does with the deep channels of a coloured picture.
    scaled = np.multiply(numbers, 255 / white, dtype=np.float32, casting="unsafe")
    grey = Image.fromarray((scaled + np.float32(1e-3)).astype(np.uint8))
    if isinstance(clear := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(numbers == clear, 0, 255).astype(np.uint8)))
    return grey


def _note_on_depth(image: Image.Image) -> str | None:
    """A sentence where 16 bits hold so little that fewer may have been meant."""
    if not image.mode.startswith("I;16"):
        return None
    high = int(np.asarray(image).max())
    if 0 < high <= 255:
        return f"of 16 bits no number is above {high}: white is taken to be 255"
    if high < NEARLY_BLACK:
        return f"of 16 bits no number is above {high:,}: it is nearly black; brighten it"
    return None


def written(image: Image.Image, content: bytes, shape: Shape) -> tuple[Image.Image, File]:
    """The picture within `shape`, and its file; a file that already is so stays as it is.

    `image` may be changed on the way.
    """
    own = {"MPO": "jpeg"}.get(image.format, (image.format or "").lower())
    kind = shape.format if shape.format != "keep" else own if own in SUFFIXES else "png"
    as_it_is = (
        own == kind
        and image.mode == "RGB"
        and max(image.size) <= shape.max_side
        and not {"exif", "icc_profile", "transparency"} & image.info.keys()
        and image.getexif().get(ORIENTATION) not in TURNS  # XMP may tell it as well
        and frames(image) == 1
    )
    rgb = upright_rgb(image, shape.background)
    if as_it_is:
        return rgb, File(content, SUFFIXES[kind])
    if max(rgb.size) > shape.max_side:
        rgb.thumbnail((shape.max_side, shape.max_side), Image.Resampling.LANCZOS)
    return rgb, File(encoded(rgb, kind, shape.quality), SUFFIXES[kind])


def encoded(image: Image.Image, format: str, quality: int) -> bytes:
    """The file of a picture, its pixels alone; JPEG at full colour resolution, PNG without loss."""
    options = {
        "jpeg": {"quality": quality, "subsampling": 0},
        "webp": {"quality": quality},
        "png": {},
    }[format]
    buffer = io.BytesIO()
    image.save(buffer, format, icc_profile=b"", **options)
    return buffer.getvalue()


def frames(image: Image.Image) -> int:
    """How many pictures follow each other. Phones put a second one into a JPEG: then it is MPO."""
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def small(image: Image.Image) -> Image.Image:
    """The picture with a shorter side of 128 to 255 pixels, or as it is where that is less."""
    return image.reduce(max(1, min(image.size) // 128))


def perceptual_hash(image: Image.Image) -> int:
    """64 bits, signed, that hardly change with size and compression; equal ones look alike."""
    import imagehash

    bits = imagehash.phash(image).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big", signed=True)


def mean_colour(image: Image.Image) -> int:
    """0xRRGGBB."""
    red, green, blue = image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    return red << 16 | green << 8 | blue
