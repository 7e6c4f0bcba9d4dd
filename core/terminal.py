"""What the commands print: bounded lines, on streams that survive a terminal which is gone."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from core.printable import printable

GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO)  # nobody will read there again


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


class LossyStream:
    """A stream that drops what it cannot write: to a terminal that is closed, a pipe that nobody
    reads, a file on a full disk. `lost` is why the last of it was dropped."""

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
        """Send the rest nowhere: also what is buffered, what libraries write to the descriptor
        themselves, and what Python would write at its end."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        with suppress(OSError):  # it has no descriptor
            os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextmanager
def outlasting() -> Iterator[LossyStream]:
    """Within it, stdout and stderr drop what they cannot write; gives stdout's stream."""
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
    """Where 0, 1 or 2 is closed, let it lead nowhere: else the next file that is opened gets the
    number, and what a library writes to the terminal lands in it."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


@contextmanager
def silent_log() -> Iterator[None]:
    """A library logs an error, or a table of it, before it raises it; one sentence is enough."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
