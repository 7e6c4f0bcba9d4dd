"""Text files of any encoding and length, read within limits."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from core.errors import UserError
from core.paths import fault_of, opened
from data.limits import ROW_CHARACTERS

MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
BYTE = re.compile("[\udc80-\udcff]")  # an undecodable byte, as surrogateescape
PART_BYTES = 2**16


class TextFault(UserError):
    """A text file that cannot be read; `fault` continues a sentence about it."""

    def __init__(self, path: Path, fault: str):
        super().__init__(f"{path} {fault}.")
        self.fault = fault


@contextmanager
def opened_text(path: Path, encoding: str) -> Iterator[TextIO]:
    """Open a text file without translating line ends; undecodable bytes become surrogates.

    A byte order mark overrides the encoding. Raises `TextFault`.
    """
    try:
        with opened(path) as file:
            start = file.read(3)
            file.seek(0)
            encoding = next((name for mark, name in MARKS.items() if start.startswith(mark)),
                            encoding)  # fmt: skip
            with io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="") as text:
                yield text
    except OSError as error:
        raise TextFault(path, f"{fault_of(error)}; put a text file there") from error
    except UnicodeError as error:  # of multi-byte encodings
        raise TextFault(path, f"is not in {encoding.upper()}; save it as UTF-8") from error


def lines(path: Path, encoding: str) -> Iterator[str]:
    """Lines with their ends. A line beyond ROW_CHARACTERS is cut to one character more."""
    with opened_text(path, encoding) as file:
        while line := file.readline(ROW_CHARACTERS + 1):
            yield line
            while len(line) > ROW_CHARACTERS and line[-1] not in "\r\n":
                line = file.readline(ROW_CHARACTERS + 1)


def count_lines(path: Path) -> int:
    """Count non-blank lines. Raises `TextFault`."""
    try:
        with opened(path) as file:
            count, begins = 0, True
            while part := file.readline(PART_BYTES):
                count += begins and bool(part.strip())
                begins = part.endswith(b"\n") or (begins and not part.strip())
        return count
    except OSError as error:
        raise TextFault(path, f"{fault_of(error)}; put a text file there") from error


def undecodable(text: str, encoding: str) -> str | None:
    """A message if `text` holds undecodable bytes, which were read as surrogates."""
    if found := BYTE.search(text):
        return (
            f"is not in {encoding.upper()} (byte 0x{ord(found[0]) - 0xDC00:02x}); save the file as "
            "UTF-8 or name its --encoding, such as latin-1"
        )
    return None
