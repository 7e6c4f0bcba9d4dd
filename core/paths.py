"""Files that users name: opened only where they are files, read no further than a bound."""

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
# Without it, to open a named pipe is to wait for somebody who writes into it.
AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class NotReadable(OSError):
    """Something is there, but nothing that can be read; `strerror` is what a sentence says of it,
    such as "is no file but a named pipe"."""


def is_folder(path: str | Path) -> bool:
    """Whether a folder is there. `Path.is_dir` raises for a name that is too long for one, or
    behind a folder that is shut."""
    return os.path.isdir(path)


def is_file(path: str | Path) -> bool:
    """Whether a file is there; likewise."""
    return os.path.isfile(path)


def is_there(path: str | Path) -> bool:
    """Whether anything is there, and be it a link to nothing; likewise."""
    return os.path.lexists(path)


def opened(path: str | Path) -> BinaryIO:
    """A file, open for reading, at once. Raises OSError; `NotReadable` for what is no file."""
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
    """ "a named pipe", "a socket" or "a device"; None for files, folders and what is not there."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    return next((name for is_kind, name in KINDS[1:] if is_kind(mode)), None)


def read_bytes(path: str | Path, max_bytes: int) -> bytes:
    """The whole of a file. Raises OSError; `NotReadable` also for more than `max_bytes` bytes."""
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise NotReadable(errno.EFBIG, f"has more than {size(max_bytes)}", str(path))
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:  # it grew, or is one of those whose size is not known before
        raise NotReadable(errno.EFBIG, f"has more than {size(max_bytes)}", str(path))
    return content


def read_own(folder: str | Path, name: str, max_bytes: int) -> bytes:
    """The whole of a file that lies in a folder; one that a link leads to elsewhere is none.
    Raises as `read_bytes`."""
    path = Path(os.path.realpath(Path(folder, name)))  # unlike `resolve` at home with any loop
    if not path.is_relative_to(os.path.realpath(folder)):
        raise NotReadable(errno.EPERM, "is a link that leads out of its folder", str(path))
    return read_bytes(path, max_bytes)


def read_text(
    path: str | Path, max_bytes: int, encoding: str = "utf-8", errors: str = "strict"
) -> str:
    """The text of a file, line breaks as "\\n". Raises as `read_bytes`, and UnicodeError."""
    text = read_bytes(path, max_bytes).decode(encoding, errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def fault_of(error: OSError) -> str:
    """What a sentence says of a file that could not be read."""
    if isinstance(error, NotReadable):
        return error.strerror or str(error)
    return f"cannot be read ({error.strerror or error})"


def size(count: int) -> str:
    """Bytes in the largest unit of which they are a whole number."""
    unit, name = next(((u, n) for u, n in UNITS if count >= u and count % u == 0), (1, "bytes"))
    return f"{count // unit:,} {name}"


def _refuse_special(mode: int, path: str | Path) -> None:
    for is_kind, name in KINDS:
        if is_kind(mode):
            raise NotReadable(errno.EINVAL, f"is no file but {name}", str(path))
