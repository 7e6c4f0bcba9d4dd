"""Recursive listing of a folder: each file once, sorted by name, without hidden ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from core.errors import UserError
from core.paths import fault_of, is_folder, is_there

MANIFEST = ".prepared.json"  # marks a folder that prepare_dataset.py wrote
NO_DATA = "__MACOSX"  # added to archives by macOS


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder, sorted by name.

    Hidden files are left out, and folders that prepare_dataset.py wrote.
    """
    return (path for path in entries_below(folder) if os.path.isfile(path))


def entries_below(folder: Path) -> Iterator[Path]:
    """As `files_below`, with dangling links, pipes and sockets.

    A folder that is linked several times is read once. Raises `UserError` for an unreadable one.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [(folder, _names_in(folder, seen))]
    while waiting:
        parent, names = waiting[-1]
        name = next(names, None)
        if name is None:
            waiting.pop()
        elif not os.path.isdir(path := parent / name):
            yield path
        elif not _is_skipped(path, folder, seen):
            waiting.append((path, _names_in(path, seen)))


def folders_in(folder: Path) -> list[str]:
    """Names of the data folders directly in a folder. Raises `UserError`."""
    names = _names_in(folder, set())
    paths = {name: folder / name for name in names}
    return [
        name for name, path in paths.items() if is_folder(path) and not is_there(path / MANIFEST)
    ]


def _names_in(folder: Path, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Names in a folder, without hidden ones. Adds the folder to `seen`."""
    try:
        about = folder.stat()
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)  # names alone: there may be a million
    except OSError as error:
        raise UserError(f"{folder} {fault_of(error)}; make it readable.") from error
    seen.add((about.st_dev, about.st_ino))
    return (name for name in names if not _is_hidden(name))


def _is_skipped(path: Path, root: Path, seen: set[tuple[int, int]]) -> bool:
    """Whether to skip a folder below `root`: written by prepare_dataset.py, or a link to a folder
    that is, or was, read under another name."""
    if (path / MANIFEST).exists():
        return True
    about = path.stat()
    if (about.st_dev, about.st_ino) in seen:
        return True
    target, top = path.resolve(), root.resolve()
    if not path.is_symlink() or not target.is_relative_to(top):
        return False
    return not any(map(_is_hidden, target.relative_to(top).parts))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == NO_DATA
