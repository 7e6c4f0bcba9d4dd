"""Paths from users: only regular files are opened, and at most a bound of bytes is read."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from core.printable import quoted

ROOT = Path(__file__).resolve().parent.parent  # the folder of this project
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
TEXT_BYTES = 64 * 2**20  # of a file of prompts
CARD_BYTES = 2**20  # of a model's card: what is shown
UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
# O_NONBLOCK: opening a named pipe would otherwise wait for a writer.
AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class NotReadable(OSError):
    """A path that exists but cannot be read; `strerror` continues a sentence about it, such as "is
    no file but a named pipe"."""


def is_folder(path: str | Path) -> bool:
    """Whether a folder exists. Unlike `Path.is_dir` it does not raise for names that are too long
    or lie in a folder without permission."""
    return os.path.isdir(path)


def is_file(path: str | Path) -> bool:
    """Whether a regular file exists; likewise."""
    return os.path.isfile(path)


def is_there(path: str | Path) -> bool:
    """Whether the path exists, if only as a dangling link; likewise."""
    return os.path.lexists(path)


def opened(path: str | Path) -> BinaryIO:
    """Open a regular file for reading. Raises OSError; `NotReadable` for other kinds."""
    try:
        _refuse_special(os.stat(path).st_mode, path)  # some devices act when they are opened
    except FileNotFoundError:
        if not os.path.islink(path):
            raise
        target = quoted(os.readlink(path))
        raise NotReadable(
            errno.ENOENT, f"is a link to {target}, which is not there", str(path)
        ) from None
    descriptor = os.open(path, os.O_RDONLY | AT_ONCE)
    try:
        _refuse_special(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return open(descriptor, "rb")


def special_kind(path: str | Path) -> str | None:
    """ "a named pipe", "a socket" or "a device"; None for files, folders and missing paths."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    return next((name for is_kind, name in KINDS[1:] if is_kind(mode)), None)


def read_bytes(path: str | Path, max_bytes: int) -> bytes:
    """Read a whole file. Raises OSError; `NotReadable` also for more than `max_bytes`."""
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise NotReadable(errno.EFBIG, f"has more than {size(max_bytes)}", str(path))
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:  # it grew, or is a pseudo-file without a size
        raise NotReadable(errno.EFBIG, f"has more than {size(max_bytes)}", str(path))
    return content


def read_own(folder: str | Path, name: str, max_bytes: int) -> bytes:
    """Read a whole file in a folder; a link that leads out of the folder is refused. Raises as
    `read_bytes`."""
    return read_bytes(own_path(folder, name), max_bytes)


def own_path(folder: str | Path, name: str) -> Path:
    """The path of a file in a folder, links followed. Raises `NotReadable` for one that leads out
    of the folder."""
    path = Path(
        os.path.realpath(Path(folder, name))
    )  # unlike `resolve`, it does not raise for link loops
    if not path.is_relative_to(os.path.realpath(folder)):
        raise NotReadable(errno.EPERM, "is a link that leads out of its folder", str(path))
    return path


def read_text(
    path: str | Path, max_bytes: int, encoding: str = "utf-8", errors: str = "strict"
) -> str:
    """Read a text file, line breaks as "\\n". Raises as `read_bytes`, and UnicodeError."""
    text = read_bytes(path, max_bytes).decode(encoding, errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def fault_of(error: OSError) -> str:
    """The rest of a sentence about a file that could not be read."""
    if isinstance(error, NotReadable):
        return error.strerror or str(error)
    return f"cannot be read ({error.strerror or error})"


def size(count: int) -> str:
    """Format bytes in the largest binary unit that divides them."""
    unit, name = next(((u, n) for u, n in UNITS if count >= u and count % u == 0), (1, "bytes"))
    return f"{count // unit:,} {name}"


def _refuse_special(mode: int, path: str | Path) -> None:
    for is_kind, name in KINDS:
        if is_kind(mode):
            raise NotReadable(errno.EINVAL, f"is no file but {name}", str(path))
