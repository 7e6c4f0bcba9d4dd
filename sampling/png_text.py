"""The text chunks of a PNG file (W3C PNG 11.3.3), read without its pixels and within bounds.

Pillow reads them too, but any number of them, and inflates each before it checks the size.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator
from typing import BinaryIO

MAX_CHUNKS = 1000  # of a PNG file before its pixels
MAX_TEXT_BYTES = 256 * 1024  # of one text, inflated
SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIECE_BYTES = 64 * 1024
KINDS = (b"tEXt", b"zTXt", b"iTXt")


class NotPNG(ValueError):
    """Not a PNG file, or a damaged one."""


class TextTooLong(ValueError):
    """More chunks, or a longer text, than the bounds allow."""


def texts(file: BinaryIO, keywords: Collection[str]) -> dict[str, str]:
    """The texts before the pixels, by these keywords; the first of several with the same keyword.

    Raises NotPNG and TextTooLong.
    """
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise NotPNG
    found: dict[str, str] = {}
    for kind, content in _chunks(file):
        name, _, rest = content.partition(b"\0")
        keyword = name.decode("latin-1")
        if kind in KINDS and keyword in keywords and keyword not in found:
            found[keyword] = _text(kind, rest)
    return found


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Type and content of each chunk before the pixels."""
    for number in range(MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            raise NotPNG
        length, kind = struct.unpack(">I4s", head)
        if number == 0 and kind != b"IHDR":
            raise NotPNG
        if kind in (b"IDAT", b"IEND"):
            return
        content = _read(file, length)
        checksum = file.read(4)
        if checksum != struct.pack(">I", zlib.crc32(kind + content)):
            raise NotPNG
        yield kind, content
    raise TextTooLong


def _read(file: BinaryIO, length: int) -> bytes:
    """At most `length` bytes, piecewise: read(4 GiB) would allocate them, however short a file."""
    parts, left = [], length
    while left and (part := file.read(min(left, PIECE_BYTES))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _text(kind: bytes, content: bytes) -> str:
    """The text of a chunk, from what follows its keyword."""
    if kind == b"tEXt":
        return _bounded(content).decode("latin-1")
    if kind == b"zTXt":
        return _inflated(content[1:]).decode("latin-1")
    is_compressed, text = content[:1] == b"\1", _international_text(content[2:])
    try:
        return (_inflated(text) if is_compressed else _bounded(text)).decode()
    except UnicodeDecodeError as error:
        raise NotPNG from error


def _international_text(content: bytes) -> bytes:
    """The text of an iTXt chunk, after its language and its translated keyword."""
    try:
        _, _, text = content.split(b"\0", 2)
    except ValueError as error:
        raise NotPNG from error
    return text


def _inflated(packed: bytes) -> bytes:
    try:
        return _bounded(zlib.decompressobj().decompress(packed, MAX_TEXT_BYTES + 1))
    except zlib.error as error:
        raise NotPNG from error


def _bounded(text: bytes) -> bytes:
    if len(text) > MAX_TEXT_BYTES:
        raise TextTooLong
    return text
