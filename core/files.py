"""Atomic writes of files and folders: a killed process leaves the previous version."""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from core.disk import exchange
from core.errors import UserError, reason_of, system_reason_of


@contextmanager
def replaced(target: Path, durable: bool = True) -> Iterator[Path]:
    """Atomic write: yields a path beside `target`, for a file or a folder, that then replaces it.

    `durable`: flush to disk first, so that a power cut cannot lose both versions. Raises
    `UserError` if writing fails; the previous version then stays, and nothing else.
    """
    target = Path(target)
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if durable:
            remove_leftovers(target.parent, glob.escape(target.name))
        yield staged
        if durable:
            flush(staged)
        take_place(staged, target)
        if durable:
            flush(target.parent, deep=False)
    except (OSError, SafetensorError) as error:
        raise unwritable(target, error) from error
    finally:
        discard(staged)


class NotWritable(UserError):
    """A file or folder could not be written; `reason` is the message without the advice."""

    def __init__(self, reason: str):
        super().__init__(f"{reason} Make room, and run the command again.")
        self.reason = reason


def unwritable(target: Path, error: Exception) -> NotWritable:
    return NotWritable(f"{target} cannot be written: {system_reason_of(error)}.")


def take_place(staged: Path, target: Path, former: Path | None = None) -> None:
    """Move `staged` to `target`. A folder that was there ends up at `staged` or is deleted; without
    atomic exchange it is kept at `former` in the meantime."""
    if not staged.is_dir() or not target.is_dir() or target.is_symlink():
        staged.replace(target)  # never a file in the place of a folder
    elif not exchange(staged, target):
        former = former or staged.with_name(f"{staged.name}.former")
        target.rename(former)
        staged.rename(target)
        remove(former)


def remove_leftovers(folder: Path, name: str = "*", alone: bool = False) -> None:
    """Remove what killed processes left in `folder` of writing files and folders matching `name`,
    and restore a version that was being replaced. `alone`: no other process can be writing."""
    for left in folder.glob(f".{name}.*"):
        match = re.fullmatch(r"\.(.+?)\.(?:(\d+)(\.former)?|gone)", left.name, re.DOTALL)
        if not match or not (alone or (match[2] and _is_over(int(match[2])))):
            continue
        target = left.with_name(match[1])
        if match[3] and not target.exists():
            left.rename(target)
        remove(left)


def _is_over(process: int) -> bool:
    """Whether a process has ended; our own id was an earlier process's, as in a container."""
    import psutil

    return process == os.getpid() or not psutil.pid_exists(process)


def vanish(folder: Path) -> None:
    """Delete a folder if it exists; no partly deleted state is ever visible."""
    gone = folder.with_name(f".{folder.name}.gone")
    remove(gone)
    if folder.exists():
        folder.rename(gone)
        discard(gone)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Remove a leftover if possible; otherwise the next start does."""
    with suppress(OSError):
        remove(path)


def flush(path: Path, deep: bool = True) -> None:
    """Flush a file, or a folder with its content, to disk (fsync)."""
    for each in [path, *(path.rglob("*") if deep else ())]:
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def temporary_folder(prefix: str) -> tempfile.TemporaryDirectory:
    """A temporary folder. Raises `UserError` where none can be made."""
    try:
        return tempfile.TemporaryDirectory(prefix=prefix)
    except OSError as error:  # as it is when no temporary folder can be written
        raise no_temporary_files(error) from error


def no_temporary_files(error: Exception) -> UserError:
    return UserError(
        f"There is no room for temporary files ({reason_of(error):.200}). Make room, or set TMPDIR "
        "to a folder that has some."
    )
