"""File system calls that Python lacks: atomic exchange, advisory locks, reserved space."""

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

# Errors of a write for lack of space or quota, or on a read-only file system.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h
RENAME_SWAP = 2  # of macOS's sys/stdio.h


def exchange(one: Path, other: Path) -> bool:
    """Swap two entries of a file system atomically; False where it does not support that."""
    sys.audit("os.rename", str(one), str(other), -1, -1)  # as os.rename does
    code = _exchange(os.fsencode(one), os.fsencode(other))
    if code and code not in UNSUPPORTED:
        raise OSError(code, os.strerror(code), str(one))
    return not code


def _exchange(one: bytes, other: bytes) -> int:
    """0, or the errno."""
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
    """Advisory lock on a folder; yields False if another process holds it and `wait` is False.

    Yields True without a lock on systems and file systems that have none.
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
    """Lock an open file or folder until it is closed; False if it is locked and `wait` is False."""
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
    """Disk space reserved by an unnamed file, which disappears with the process however that ends.

    Reserves nothing on file systems that cannot allocate.
    """

    def __init__(self, folder: Path):
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (held until `close`)
        self.size = 0

    def hold(self, size: int) -> None:
        """Change the reservation to `size` bytes. Raises OSError, and keeps the former reservation,
        where there is not enough space."""
        number = self._file.fileno()
        if size < self.size:
            os.ftruncate(number, size)
        elif size > self.size and (code := _allocate(number, size)):
            os.ftruncate(number, self.size)  # part of it may have been allocated
            raise OSError(code, os.strerror(code))
        self.size = size

    def close(self) -> None:
        self._file.close()


def _allocate(number: int, size: int) -> int:
    """Allocate blocks for the first `size` bytes of an open file; 0, also if unsupported, or errno.

    Not `os.posix_fallocate`, which falls back to writing every block.
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
    """Extend an open file to `size` bytes that are backed by disk space. Raises OSError where there
    is not enough."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(number, 0, size)
    free = shutil.disk_usage(number).free if hasattr(os, "fstatvfs") else size
    if os.fstat(number).st_size < size and free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(number, size)
