"""What the system offers for files beyond Python's own: room kept free, places exchanged."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What a write answers where there is no room, or none for this user.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h
RENAME_SWAP = 2  # of macOS's sys/stdio.h


def exchange(one: Path, other: Path) -> bool:
    """Let two entries of one file system change places in a single step; False where it cannot."""
    sys.audit("os.rename", str(one), str(other), -1, -1)  # as os.rename tells of itself
    code = _exchange(os.fsencode(one), os.fsencode(other))
    if code and code not in UNSUPPORTED:
        raise OSError(code, os.strerror(code), str(one))
    return not code


def _exchange(one: bytes, other: bytes) -> int:
    """0, or the system's number for what went wrong."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        rename = libc.renamex_np if sys.platform == "darwin" else libc.renameat2
    except (AttributeError, TypeError):  # another C library, or none
        return errno.ENOSYS
    if sys.platform == "darwin":
        failed = rename(one, other, RENAME_SWAP)
    else:
        failed = rename(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE)
    return ctypes.get_errno() if failed else 0


@contextmanager
def held(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a folder against all who ask so; False where somebody holds it and nobody is to `wait`.

    Nobody is kept out where the system, or the file system, has no such locks.
    """
    if os.name != "posix":
        yield True
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        yield lock(number, wait)
    finally:
        os.close(number)


def lock(number: int, wait: bool = True) -> bool:
    """Lock an open file or folder until it is closed; False where somebody else has, unless told
    to `wait`."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (*UNSUPPORTED, errno.EBADF, errno.ENOLCK):
            raise
    return True


class ReservedSpace:
    """Room that is kept free in a folder, in a file without a name: it goes with its process,
    however that ends. Where the file system cannot allocate, nothing is kept."""

    def __init__(self, folder: Path):
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (held until `close`)
        self.size = 0

    def hold(self, size: int) -> None:
        """Keep `size` bytes, whatever was kept before. Raises OSError where there is not so much;
        then as much stays as before."""
        number = self._file.fileno()
        if size < self.size:
            os.ftruncate(number, size)
        elif size > self.size and (code := _allocate(number, size)):
            os.ftruncate(number, self.size)  # part of it may have been had
            raise OSError(code, os.strerror(code))
        self.size = size

    def close(self) -> None:
        self._file.close()


def _allocate(number: int, size: int) -> int:
    """Blocks for the first `size` bytes of an open file; 0, also where that is unknown, or why not.

    Not `os.posix_fallocate`, which writes them all where the file system does not know it.
    """
    try:
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate64
    except (AttributeError, TypeError):
        return 0
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    code = errno.EINTR
    while code == errno.EINTR:
        code = ctypes.get_errno() if fallocate(number, 0, 0, size) else 0
    return 0 if code in UNSUPPORTED else code


def allocate(number: int, size: int) -> None:
    """Give an open file its first `size` bytes, with room on disk for each of them. Raises OSError
    where there is not so much."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(number, 0, size)
    free = shutil.disk_usage(number).free if hasattr(os, "fstatvfs") else size
    if os.fstat(number).st_size < size and free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(number, size)
