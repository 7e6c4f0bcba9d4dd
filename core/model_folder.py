"""A model's folder: a new model takes the place of an older one so that at any moment one of the
two opens, for whatever program reads it.

The new one is written to the hidden folder .new. Then each entry of the old one gives way to a link
that leads there through the link .now: first to .former, where the old entries are. When all do,
.now is turned to .new, in one step for all of them; then the entries of the new one take the places
of the links. Where a file system cannot exchange two entries, they are moved one by one, what makes
a folder a model last. Either way whoever looks at the folder next finishes what was begun.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from core.disk import exchange, held
from core.errors import UserError
from core.files import discard, flush, mend, remove, unwritable, vanish
from core.tensor_names import KOHYA_FILE, LORA_FILE

NEW, FORMER, NOW = ".new", ".former", ".now"
# What makes a folder a LoRA's or a whole model's: where the new one has none, the old one's goes.
MARKS = (LORA_FILE, KOHYA_FILE, "model_index.json")


@contextmanager
def replaced_model(folder: Path) -> Iterator[Path]:
    """A folder to write a model to; once written, its entries replace those of `folder`, and
    others stay. Raises `UserError` where it cannot be written; then the older model stays."""
    staged = folder / f"{NEW}.{os.getpid()}"
    try:
        finish(folder)
        folder.mkdir(parents=True, exist_ok=True)
        mend(folder, NEW.removeprefix("."))
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
    """Before a folder is read: finish what a killed process began there, where this one may."""
    try:
        finish(folder, wait=False)
    except OSError:  # a folder of others, or no room: it opens as it is, or the opener says why not
        return


def finish(folder: Path, wait: bool = True) -> None:
    """Put a model that is whole in its place, and clear away the one that was there.

    Unless told to `wait`, it is left to who is at it.
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
        vanish(new)  # links, or nothing: first, so that it is never taken for a model again
        remove(now)
        vanish(former)


def _can_exchange(folder: Path) -> bool:
    """Whether its file system lets a link and a folder change places in one step."""
    link, other = folder / ".link", folder / ".other"
    try:
        remove(link)  # a killed process may have been here
        remove(other)
        link.symlink_to(NOW)
        other.mkdir()
        return exchange(link, other)
    except (NotImplementedError, PermissionError):  # there are no links
        return False
    finally:
        discard(link)
        discard(other)


def _switch(folder: Path) -> None:
    """All entries at once. Called again after a kill, it goes on where it was."""
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
    """Names of the new model's entries, and of those that the old one alone has and that go."""
    names = {path.name for path in (folder / NEW).iterdir() if not path.name.startswith(".")}
    return sorted(names | {mark for mark in MARKS if os.path.lexists(folder / mark)})


def _link(folder: Path, name: str) -> None:
    """Let a link stand for an entry, which leads to the same one."""
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
    """One entry after the other; what makes the folder a model leaves first and comes last."""
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
