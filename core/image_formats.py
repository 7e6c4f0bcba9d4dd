"""Image formats that Pillow reads through optional plug-ins: HEIC and JPEG XL."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

from PIL import Image

from core.errors import is_ours
from core.paths import opened

JXL_CODESTREAM = b"\xff\x0a"
JXL_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
JXL_RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # width : height
HEVC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
HEIF_BRANDS = {b"mif1", b"msf1"}  # whose pictures may be HEVC or AV1
AV1_BRANDS = (b"avif", b"avis")
BOXES = 64  # of a container that are searched for the codestream


class Unreadable(Exception):
    """A file that cannot be read as a picture; the message says why."""


@dataclass(frozen=True)
class Plugin:
    """A plug-in that adds a format to Pillow."""

    format: str
    package: str  # as pip calls it
    accepts: Callable[[bytes], bool]
    register: Callable[[], object]


def open_image(content: bytes, formats: Sequence[str] | None = None) -> Image.Image:
    """Open a picture without decoding it. Raises `Unreadable`, and what Pillow raises.

    `formats`: Pillow's names of those to try; None: all.
    """
    plugin = next((each for each in PLUGINS if each.accepts(content)), None)
    if plugin and not _registered(plugin):
        raise Unreadable(
            f"is {plugin.format}, which Pillow reads with a plug-in: pip install {plugin.package}, "
            "or save it as JPEG"
        )
    if plugin is JPEG_XL:
        _check_pixels(*_jxl_size(content))
    Image.init()
    known = None if formats is None else [each for each in formats if each in Image.OPEN]
    image = Image.open(io.BytesIO(content), formats=known)
    if image.format == "EPS":  # to decode it, Pillow would run Ghostscript
        raise Unreadable("is EPS, a program that draws; save it as PNG")
    if plugin is JPEG_XL and not image.jpeg:  # type: ignore[attr-defined]  # the plug-in's own
        image.info.pop("exif", None)  # the decoder has applied the orientation
    return image


def is_picture(path: Path) -> bool:
    """Whether a file holds a picture, whatever its suffix."""
    try:
        with opened(path) as file:
            start = file.read(256)
            file.seek(0)
            if any(each.accepts(start) for each in PLUGINS):
                return True
            return Image.open(file).format != "EPS"
    except Exception as error:  # what Pillow raises depends on the format it takes the file for
        if is_ours(error):
            raise
        return False


def _check_pixels(width: int, height: int) -> None:
    """Pillow's limit on pixels, checked early: the plug-in decodes on opening."""
    if Image.MAX_IMAGE_PIXELS and width * height > 2 * Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(f"{width} x {height}")


@lru_cache
def _registered(plugin: Plugin) -> bool:
    """Register the plug-in; False if it is not installed."""
    try:
        plugin.register()
    except ImportError:
        return False
    return True


def _is_heic(content: bytes) -> bool:
    if content[4:8] != b"ftyp":
        return False
    size, brand = int.from_bytes(content[:4], "big"), content[8:12]
    others = content[16 : min(size, 256)]
    return brand in HEVC_BRANDS or (
        brand in HEIF_BRANDS and not any(each in others for each in AV1_BRANDS)
    )


def _is_jxl(content: bytes) -> bool:
    return content.startswith((JXL_CODESTREAM, JXL_CONTAINER))


def _jxl_size(content: bytes) -> tuple[int, int]:
    """Width and height from a JPEG XL header (ISO/IEC 18181-1, SizeHeader)."""
    bits = _Bits(_jxl_codestream(content)[2:16])
    small = bits.read(1)

    def side() -> int:
        if small:
            return 8 * (bits.read(5) + 1)
        return bits.read((9, 13, 18, 30)[bits.read(2)]) + 1

    height = side()
    ratio = JXL_RATIOS[bits.read(3)]
    return (height * ratio[0] // ratio[1] if ratio else side()), height


def _jxl_codestream(content: bytes) -> bytes:
    """Start of the codestream, bare or in a container."""
    if content.startswith(JXL_CODESTREAM):
        return content
    for kind, start in islice(_boxes(content), BOXES):
        if kind in (b"jxlc", b"jxlp"):
            start += 4 if kind == b"jxlp" else 0  # the number of the part
            return content[start : start + 16]
    raise Unreadable("is JPEG XL without a picture; save it again")


def _boxes(content: bytes):
    """Type and content offset of each box of an ISO base media file."""
    place = 0
    while place + 8 <= len(content):
        size, kind, head = int.from_bytes(content[place : place + 4], "big"), None, 8
        kind = content[place + 4 : place + 8]
        if size == 1:
            size, head = int.from_bytes(content[place + 8 : place + 16], "big"), 16
        yield kind, place + head
        place += max(size, head) if size else len(content)


class _Bits:
    """Bit reader, least significant bit first."""

    def __init__(self, content: bytes):
        self.rest = int.from_bytes(content, "little")

    def read(self, count: int) -> int:
        value = self.rest & ((1 << count) - 1)
        self.rest >>= count
        return value


def _register_heif() -> None:
    importlib.import_module("pillow_heif").register_heif_opener()


JPEG_XL = Plugin(
    "JPEG XL", "pillow-jxl-plugin", _is_jxl, lambda: importlib.import_module("pillow_jxl")
)
PLUGINS = (Plugin("HEIC", "pillow-heif", _is_heic, _register_heif), JPEG_XL)
