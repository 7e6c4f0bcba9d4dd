"""Written whole, or not at all: what a killed run leaves behind is what was there before."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from errors import UserError

REHEARSAL = "checkpoint-rehearsal"  # no step: never resumed from


def clear_leftovers(output: Path) -> None:
    """Mend what a killed run left: unfinished files go, what was being replaced comes back."""
    for former in output.glob(".former.*"):
        _give_back(output, former)
    for former in output.glob(".*.*.former"):
        _settle(former, output / former.name[1:].rsplit(".", 2)[0])
    for pattern in (".new.*", REHEARSAL, ".checkpoint-*", ".best.*", ".report.html.*"):
        for path in output.glob(pattern):
            remove(path)


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to, a file or a folder; flushed, it takes its place.

    A file is replaced at once. A folder that is there gives way under a hidden name first.
    """
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    former = target.with_name(f".{target.name}.{os.getpid()}.former")
    try:
        yield staged
        _flush(staged)
        if target.is_dir():
            target.rename(former)
        staged.rename(target)
        _flush(target.parent, deep=False)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{target} cannot be written: {error}. Make room and resume.") from error
    finally:
        _settle(former, target)
        remove(staged)


@contextmanager
def replaced_files(folder: Path, last: str) -> Iterator[Path]:
    """A folder to write to; once written, its entries replace those of `folder`, others stay.

    `last` leaves first and comes last: a folder caught between does not open, rather than mix two,
    and `clear_leftovers` brings the former one back.
    """
    staged, former = (folder / f".{name}.{os.getpid()}" for name in ("new", "former"))
    staged.mkdir(parents=True)
    try:
        yield staged
        _flush(staged)
        former.mkdir()
        names = [last, *sorted(path.name for path in staged.iterdir() if path.name != last)]
        for name in names:
            if (folder / name).exists():
                (folder / name).rename(former / name)
        for name in reversed(names):
            (staged / name).rename(folder / name)
        _flush(folder, deep=False)
        remove(former)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder} cannot be written: {error}. Make room and resume.") from error
    finally:
        if former.exists():
            _give_back(folder, former)
        remove(staged)


def _settle(former: Path, target: Path) -> None:
    """What gave way comes back, unless something else stands in its place."""
    if former.exists() and not target.exists():
        former.rename(target)
    remove(former)


def _give_back(folder: Path, former: Path) -> None:
    """Undo a replacement that broke off. `model_index.json` moves last: with it, it was done."""
    moved = list(former.iterdir())
    if not all((folder / path.name).exists() for path in moved):
        for path in moved:
            remove(folder / path.name)
            path.rename(folder / path.name)
    remove(former)


def vanish(folder: Path) -> None:
    """Delete a folder, if it is there, so that no half of it is ever seen."""
    gone = folder.with_name(f".{folder.name}.gone")
    remove(gone)
    if folder.exists():
        folder.rename(gone)
        remove(gone)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path, deep: bool = True) -> None:
    """Make a file or a folder with its content survive a power cut."""
    for each in [path, *(path.rglob("*") if deep else ())]:
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
