"""What the commands print: every line bounded and visible, whatever it quotes."""

from __future__ import annotations

import sys
from typing import TextIO

from core.printable import printable


def say(text: object = "", stream: TextIO | None = None, end: str = "\n") -> None:
    """Print text of one or several lines, on stdout unless another stream is given.

    A character that the terminal does not know is escaped.
    """
    stream = stream or sys.stdout
    stream.write(shown(text, stream) + end)
    stream.flush()


def shown(text: object, stream: TextIO | None = None) -> str:
    """The text as `say` prints it, for progress bars, which print by themselves."""
    lines = "\n".join(map(printable, str(text).split("\n")))
    encoding = getattr(stream or sys.stdout, "encoding", None) or "utf-8"
    return lines.encode(encoding, "backslashreplace").decode(encoding)


def complain(text: object) -> None:
    """Print on stderr: what is wrong, or may be."""
    say(text, sys.stderr)
