"""Atomic replacement of the model in a folder: at any moment the old or the new model opens, for
whatever program reads it.

The new model is written to the hidden folder .new. Each entry of the old one is replaced by a link
through the link .now, which first leads to .former, where the old entries are moved. When all are
links, .now is switched to .new, which switches all entries in one step; then the new entries
replace the links. On file systems that cannot exchange two entries, they are moved one by one, and
those that make the folder a model last. The next process to open the folder completes an
interrupted replacement.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from core.disk import exchange, held
from core.errors import UserError
from core.files import discard, flush, remove, remove_leftovers, unwritable, vanish
from core.tensor_names import KOHYA_FILE, LORA_FILE

NEW, FORMER, NOW = ".new", ".former", ".now"
# What makes a folder a LoRA's or a whole model's: where the new one has none, the old one's goes.
MARKS = (LORA_FILE, KOHYA_FILE, "model_index.json")


@contextmanager
def replaced_model(folder: Path) -> Iterator[Path]:
    """Yields a folder to write a model to, whose entries then replace those of `folder`; other
    entries stay. Raises `UserError` if writing fails; then the old model stays."""
    staged = folder / f"{NEW}.{os.getpid()}"
    try:
        finish(folder)
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder, NEW.removeprefix("."))
        staged.mkdir()
        yield staged
        flush(staged)
        staged.rename(folder / NEW)
    except (OSError, SafetensorError) as error:
        raise unwritable(folder, error) from error
    finally:
        discard(staged)
    try:
        finish(folder)
    except OSError as error:
        raise UserError(
            f"The new model is whole in {folder / NEW}, but could not take its place in {folder} "
            f"({error.strerror}); the next command that opens {folder} completes it."
        ) from error


def settle(folder: Path) -> None:
    """Complete an interrupted replacement before a folder is read, if that is permitted."""
    try:
        finish(folder, wait=False)
    except OSError:  # not writable, or no space: the folder is opened as it is
        return


def finish(folder: Path, wait: bool = True) -> None:
    """Complete the replacement by a model that was written whole, and delete the old one.

    Without `wait`, does nothing if another process is doing it.
    """
    new, former, now = (folder / name for name in (NEW, FORMER, NOW))
    if not any(map(os.path.lexists, (new, former, now))):
        return
    with held(folder, wait) as ours:
        if not ours:
            return
        if new.is_dir() and (now.is_symlink() or _can_exchange(new)):
            _switch(folder)
        elif new.is_dir():
            _move(folder)
        flush(folder, deep=False)
        vanish(
            new
        )  # links, or empty: deleted first, so that it is never taken for a new model again
        remove(now)
        vanish(former)


def _can_exchange(folder: Path) -> bool:
    """Whether the file system can exchange a link and a folder atomically."""
    link, other = folder / ".link", folder / ".other"
    try:
        remove(link)  # left by a killed process
        remove(other)
        link.symlink_to(NOW)
        other.mkdir()
        return exchange(link, other)
    except (NotImplementedError, PermissionError):  # no symbolic links
        return False
    finally:
        discard(link)
        discard(other)


def _switch(folder: Path) -> None:
    """Replace all entries at once. Continues where a killed process stopped."""
    now = folder / NOW
    if not now.is_symlink():
        (folder / FORMER).mkdir(exist_ok=True)
        now.symlink_to(FORMER)
    if os.readlink(now) == FORMER:
        for name in _waiting(folder):
            _link(folder, name)
        turned = folder / f"{NOW}.{NEW}"
        remove(turned)
        turned.symlink_to(NEW)
        turned.replace(now)
    for path in list(folder.iterdir()):
        if not _is_link(path):
            continue
        if os.path.lexists(folder / NEW / path.name):
            exchange(path, folder / NEW / path.name)
        else:
            path.unlink()


def _waiting(folder: Path) -> list[str]:
    """Names of the new model's entries, and of marks that only the old model has."""
    names = {path.name for path in (folder / NEW).iterdir() if not path.name.startswith(".")}
    return sorted(names | {mark for mark in MARKS if os.path.lexists(folder / mark)})


def _link(folder: Path, name: str) -> None:
    """Replace an entry by a link that leads to it."""
    place, kept = folder / name, folder / FORMER / name
    if _is_link(place):
        return
    if not os.path.lexists(place):
        place.symlink_to(f"{NOW}/{name}")
        return
    if not os.path.lexists(kept):
        kept.symlink_to(f"{NOW}/{name}")
    exchange(place, kept)


def _is_link(path: Path) -> bool:
    return path.is_symlink() and os.readlink(path) == f"{NOW}/{path.name}"


def _move(folder: Path) -> None:
    """Move entries one by one; those that make the folder a model leave first and arrive last."""
    new, former = folder / NEW, folder / FORMER
    if not former.exists():
        leaving = folder / f"{FORMER}{NEW}"
        leaving.mkdir(exist_ok=True)
        for mark in filter(os.path.lexists, (folder / mark for mark in MARKS)):
            mark.rename(leaving / mark.name)
        leaving.rename(former)
    for name in sorted(os.listdir(new), key=lambda name: (name in MARKS, name)):
        if os.path.lexists(folder / name):
            (folder / name).rename(former / name)
        (new / name).rename(folder / name)
