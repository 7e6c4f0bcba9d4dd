"""Untrusted JSON: length, nesting and digits are bounded; large files are read value by value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from json.decoder import JSONDecodeError
from pathlib import Path
from typing import TextIO

from core.paths import read_bytes

DIGITS = 300  # of a number: as many as a float can hold
DEPTH = 100  # of nested lists and objects
VALUE_CHARACTERS = 16 * 2**20  # of a line, or of an entry of a large file
FILE_BYTES = 64 * 2**20  # of a file that is read whole
CHUNK = 2**18  # characters
LONGEST_WORD = 16  # characters of a literal or an escape that the end of a chunk may cut

LONG_NUMBER = re.compile(rf"(?<![0-9])[0-9]{{{DIGITS + 1}}}")
DIGITS_IN_A_ROW = re.compile("[0-9]+")
STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
NOT_SPACE = re.compile(r"[^ \t\r\n]")


class JSONFault(ValueError):
    """JSON that is refused; the message continues a sentence about the file."""


class BrokenJSON(JSONFault):
    """Invalid JSON, after which the next value cannot be located."""


def loads(text: str | bytes, max_characters: int = VALUE_CHARACTERS) -> object:
    """Parse a JSON text. Raises `JSONFault`."""
    if len(text) > max_characters:
        raise JSONFault(f"has more than {max_characters:,} characters")
    if isinstance(text, bytes):
        try:
            text = text.decode(json.detect_encoding(text))
        except UnicodeDecodeError as error:
            raise JSONFault(f"is no JSON: {error.reason}") from error
    decoder = _Decoder(text)
    try:
        value = decoder.decode(text)
    except RecursionError as error:
        raise JSONFault(_TOO_DEEP) from error
    except JSONDecodeError as error:
        raise JSONFault(f"is no JSON: {error}") from error
    decoder.check(text)
    return value


def read(path: str | Path, max_bytes: int = FILE_BYTES) -> object:
    """Parse a JSON file. Raises `JSONFault`, and OSError as `read_bytes` does."""
    return loads(read_bytes(path, max_bytes), max_bytes)


def check_bounds(text: str) -> None:
    """Raise `JSONFault` for JSON nested too deep, or with a number of too many digits."""
    if LONG_NUMBER.search(text) and LONG_NUMBER.search(STRING.sub("", text)):
        raise JSONFault(f"holds a number of more than {DIGITS:,} digits")
    _refuse_depth(text)


class Scanner:
    """Streaming JSON parser over a text file: holds one value at a time.

    `raw` is the text of the last value. Methods raise `BrokenJSON` where the rest of the document
    is invalid; after a plain `JSONFault` the next value can still be read.
    """

    def __init__(self, file: TextIO):
        self.raw = ""
        self._file, self._text, self._at, self._line = file, "", 0, 1
        self._decoder = _Decoder("")

    def peek(self) -> str:
        """The next non-blank character, not consumed; "" at the end."""
        while True:
            found = NOT_SPACE.search(self._text, self._at)
            self._at = found.start() if found else len(self._text)
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def elements(self) -> Iterator[None]:
        """Yield before each value of a list; the caller must read it before continuing."""
        self._take("[")
        if self.peek() == "]":
            return self._take("]")
        yield
        while self.peek() == ",":
            self._take(",")
            yield
        self._take("]")

    def names(self) -> Iterator[str]:
        """Yield each name of an object; the caller must read its value before continuing."""
        self._take("{")
        if self.peek() == "}":
            return self._take("}")
        yield self._name()
        while self.peek() == ",":
            self._take(",")
            yield self._name()
        self._take("}")

    def end(self) -> None:
        """Raise unless the document ends here."""
        if self.peek():
            raise self._broken("something follows after its end")

    def value(self) -> object:
        """Parse the next value."""
        self.peek()
        while True:
            value, end, error = self._tried()
            whole = error is None and end + len("e+1") <= len(self._text)  # of 2e+1, 2 is no end
            if not whole and len(self._text) - self._at > VALUE_CHARACTERS:
                raise self._broken(f"one value has more than {VALUE_CHARACTERS:,} characters")
            if whole or self._is_final(error) or not self._more():
                break
        if error is not None:
            raise self._broken(error.msg, error.pos)
        self.raw, self._at = self._text[self._at : end], end
        self._decoder.check(self.raw)
        return value

    def _name(self) -> str:
        name = self.value() if self.peek() == '"' else None
        if not isinstance(name, str):
            raise self._broken("a name in double quotes is missing")
        self._take(":")
        return name

    def _take(self, mark: str) -> None:
        if self.peek() != mark:
            raise self._broken(f"{mark!r} is missing" if self.peek() else "it breaks off")
        self._at += 1

    def _tried(self) -> tuple[object, int, JSONDecodeError | None]:
        """The value at the current position, its end, and the error if there is none."""
        try:
            return *self._decoder.raw_decode(self._text, self._at), None
        except JSONDecodeError as error:
            return None, 0, error
        except RecursionError as error:
            raise self._broken(_TOO_DEEP) from error

    def _is_final(self, error: JSONDecodeError | None) -> bool:
        """Whether more text could not fix the error."""
        if error is None or error.msg.startswith("Unterminated"):
            return False
        return error.pos < len(self._text) - LONGEST_WORD

    def _more(self) -> bool:
        """Read the next chunk; False at the end. The buffer doubles, so that time stays linear."""
        chunk = self._file.read(max(CHUNK, len(self._text) - self._at))
        if chunk:
            self._line += self._text.count("\n", 0, self._at)
            self._text, self._at = self._text[self._at :] + chunk, 0
            self._decoder = _Decoder(self._text)
        return bool(chunk)

    def _broken(self, reason: str, place: int | None = None) -> BrokenJSON:
        place = self._at if place is None else place
        line = self._line + self._text.count("\n", 0, place)
        return BrokenJSON(f"is no whole JSON (line {line}: {reason})")


_TOO_DEEP = f"is nested more than {DEPTH} deep"


class _Decoder(json.JSONDecoder):
    """JSON decoder that records overlong numbers instead of converting them.

    Conversion takes quadratic time, and overlong numbers crash some libraries.
    """

    def __init__(self, text: str):
        """`text`: the input; numbers are checked one by one only if it holds an overlong one."""
        has_long = bool(LONG_NUMBER.search(text))
        super().__init__(
            parse_int=self._integer if has_long else None,
            parse_float=self._decimal if has_long else None,
        )
        self._longest = 0

    def check(self, raw: str) -> None:
        """Raise `JSONFault` if what was decoded from `raw` exceeded the bounds."""
        longest, self._longest = self._longest, 0
        if longest > DIGITS:
            raise JSONFault(f"holds a number of {longest:,} digits; at most {DIGITS:,} are read")
        _refuse_depth(raw)

    def _integer(self, number: str) -> int:
        return int(number) if self._is_short(number) else 0

    def _decimal(self, number: str) -> float:
        return float(number) if self._is_short(number) else 0.0

    def _is_short(self, number: str) -> bool:
        """Whether no run of digits is longer than DIGITS, as LONG_NUMBER counts them."""
        longest = max(map(len, DIGITS_IN_A_ROW.findall(number)))
        self._longest = max(self._longest, longest)
        return longest <= DIGITS


def _refuse_depth(raw: str) -> None:
    """Raise `JSONFault` for JSON that is nested deeper than DEPTH."""
    if raw.count("[") + raw.count("{") <= DEPTH:
        return
    import numpy as np

    marks = np.frombuffer(STRING.sub("", raw).encode("utf-8", "replace"), np.uint8)
    opens = (marks == ord("[")) | (marks == ord("{"))
    steps = opens.astype(np.int8) - ((marks == ord("]")) | (marks == ord("}")))
    if steps.cumsum(dtype=np.int32).max(initial=0) > DEPTH:
        raise JSONFault(_TOO_DEEP)
