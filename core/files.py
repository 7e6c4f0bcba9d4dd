"""Written whole, or not at all: what a killed process leaves behind is what was there before."""

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
    """A path beside `target` to write to, a file or a folder, which then takes its place at once.

    `durable`: flushed before, so that a power cut does not lose both. Raises `UserError` where it
    cannot be written; then the former stays, and nothing else.
    """
    target = Path(target)
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        if durable:
            mend(target.parent, glob.escape(target.name))
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
    """A file or folder could not be written; `reason` is the sentence without what to do."""

    def __init__(self, reason: str):
        super().__init__(f"{reason} Make room, and run the command again.")
        self.reason = reason


def unwritable(target: Path, error: Exception) -> NotWritable:
    return NotWritable(f"{target} cannot be written: {system_reason_of(error)}.")


def take_place(staged: Path, target: Path, former: Path | None = None) -> None:
    """Put `staged` where `target` is; a folder that was there is under the name of `staged` then,
    or gone. Where two entries cannot change places, it waits as `former` meanwhile."""
    if not staged.is_dir() or not target.is_dir() or target.is_symlink():
        staged.replace(target)  # never a file in the place of a folder
    elif not exchange(staged, target):
        former = former or staged.with_name(f"{staged.name}.former")
        target.rename(former)
        staged.rename(target)
        remove(former)


def mend(folder: Path, name: str = "*", alone: bool = False) -> None:
    """Clear away what killed processes left in `folder` of files and folders called `name`, a
    pattern; what was giving way comes back. `alone`: whatever is left, nobody is at it now."""
    for left in folder.glob(f".{name}.*"):
        found = re.fullmatch(r"\.(.+?)\.(?:(\d+)(\.former)?|gone)", left.name, re.DOTALL)
        if not found or not (alone or (found[2] and _is_over(int(found[2])))):
            continue
        target = left.with_name(found[1])
        if found[3] and not target.exists():
            left.rename(target)
        remove(left)


def _is_over(process: int) -> bool:
    """Whether it has ended; of this process's number, an earlier one has, as in a container."""
    import psutil

    return process == os.getpid() or not psutil.pid_exists(process)


def vanish(folder: Path) -> None:
    """Delete a folder, if it is there, so that no half of it is ever seen."""
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
    """Remove what is of no use any more, if that can be; if not, it goes at the next start."""
    with suppress(OSError):
        remove(path)


def flush(path: Path, deep: bool = True) -> None:
    """Make a file or a folder with its content survive a power cut."""
    for each in [path, *(path.rglob("*") if deep else ())]:
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def temporary_folder(prefix: str) -> tempfile.TemporaryDirectory:
    """A folder for the time of this process. Raises `UserError` where there is no room for one."""
    try:
        return tempfile.TemporaryDirectory(prefix=prefix)
    except OSError as error:  # as it is when no temporary folder can be written
        raise no_temporary_files(error) from error


def no_temporary_files(error: Exception) -> UserError:
    return UserError(
        f"There is no room for temporary files ({reason_of(error):.200}). Make room, or set TMPDIR "
        "to a folder that has some."
    )
