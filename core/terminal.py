"""Terminal output: bounded, printable lines on streams that survive a closed terminal."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from core.printable import printable

GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO)  # permanent: the reader is gone


def say(text: object = "", stream: TextIO | None = None, end: str = "\n") -> None:
    """Print text of one or several lines, by default on stdout.

    Characters that the terminal's encoding lacks are escaped.
    """
    stream = stream or sys.stdout
    stream.write(shown(text, stream) + end)
    stream.flush()


def shown(text: object, stream: TextIO | None = None) -> str:
    """The text as `say` prints it, for progress bars, which print themselves."""
    lines = "\n".join(map(printable, str(text).split("\n")))
    encoding = getattr(stream or sys.stdout, "encoding", None) or "utf-8"
    return lines.encode(encoding, "backslashreplace").decode(encoding)


def complain(text: object) -> None:
    """Print an error or a warning on stderr."""
    say(text, sys.stderr)


class LossyStream:
    """A stream that drops output it cannot write: to a closed terminal, a broken pipe, a full disk.
    `lost` is the error of the last write that failed."""

    def __init__(self, stream):
        self._stream, self.lost = stream, None

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def writelines(self, lines) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost = error
        if error.errno in GONE:
            self.give_up()

    def give_up(self) -> None:
        """Redirect the descriptor to the null device: for buffered output, for libraries that write
        to it directly, and for Python's own flush at exit."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        with suppress(OSError):  # no descriptor
            os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextmanager
def outlasting() -> Iterator[LossyStream]:
    """Make stdout and stderr lossy in the block; yields stdout's stream."""
    _fill_descriptors()
    usual = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (LossyStream(each or open(os.devnull, "w")) for each in usual)  # noqa: SIM115
    streams = sys.stdout, sys.stderr
    try:
        yield streams[0]
    finally:
        for stream in streams:
            stream.flush()
            if stream.lost:
                stream.give_up()
        sys.stdout, sys.stderr = usual


def _fill_descriptors() -> None:
    """Open the null device on closed descriptors among 0, 1 and 2: otherwise the next file opened
    gets the number, and output of libraries would be written into it."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


@contextmanager
def silent_log() -> Iterator[None]:
    """Disable logging, for libraries that log an error before raising it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
