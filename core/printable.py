"""Untrusted text made safe to print: one line, bounded, without invisible characters."""

from __future__ import annotations

import re
import unicodedata

LINE_CHARACTERS = 2_000  # of a line in a terminal, a finding or a page
QUOTE_CHARACTERS = 120  # of a value that a sentence quotes
CUT = " [...] "
# Invisible characters that Unicode classes as letters, marks or symbols.
FILLERS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\ufdd0-\ufdef\ufffe\uffff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
CONTROLS = (*range(9), 11, 12, *range(14, 32), *range(127, 160))  # except line breaks and tabs
TURNS = (
    0x061C,
    0x200E,
    0x200F,
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
)  # of the writing direction
BYTES = range(0xDC80, 0xDD00)  # surrogates for undecodable bytes of file names
# For `str.translate` of multi-line text: escapes of invisible characters.
UNSEEN = {code: repr(chr(code))[1:-1] for code in (*CONTROLS, *TURNS)}
UNSEEN |= {code: f"\\x{code - 0xDC00:02x}" for code in BYTES}
SURROGATE = re.compile("[\ud800-\udfff]")
EMPTY = {"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"}  # Unicode categories without a glyph


def printable(text: str, limit: int = LINE_CHARACTERS) -> str:
    """The text on one line of at most `limit` characters, all of them visible.

    Control characters, direction marks, lone surrogates and undecodable bytes are escaped as in
    Python. Text that is too long loses its middle: the end of a message is the advice.
    """
    text = shortened(text, limit)
    return text if text.isprintable() else shortened("".join(map(_visible, text)), limit)


def quoted(value: object, limit: int = QUOTE_CHARACTERS) -> str:
    """The repr of a value in at most about `limit` characters."""
    if isinstance(value, str):
        return _with_bytes(repr(shortened(value, limit)))
    return printable(repr(value), limit)


def shortened(text: str, limit: int) -> str:
    """Cut the middle of a text that has more than `limit` characters."""
    if len(text) <= limit:
        return text
    end = limit // 4
    return text[: limit - end - len(CUT)] + CUT + text[-end:]


def is_text(text: str) -> bool:
    """Whether a text can be encoded: it holds no lone surrogates."""
    return not SURROGATE.search(text)


def is_blank(text: str) -> bool:
    """Whether a text holds white space, control and zero-width characters alone."""
    return all(unicodedata.category(c) in EMPTY or FILLERS.match(c) for c in text)


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return _with_bytes(repr(character)[1:-1])


def _with_bytes(written: str) -> str:
    r"""Write surrogates of undecodable bytes, \udcff, as the bytes: \xff."""
    return re.sub(r"\\udc([89a-f][0-9a-f])", r"\\x\1", written)
