"""The files of a folder and of its folders: each once, in the order of their names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from core.errors import UserError
from core.paths import fault_of, is_folder, is_there

MANIFEST = ".prepared.json"  # of a data set that prepare_dataset.py wrote; hidden: it is no data
NO_DATA = "__MACOSX"  # what a Mac adds to archives


def files_below(folder: Path) -> Iterator[Path]:
    """All files of a folder and its folders in the order of their names.

    Hidden ones are left out, and folders that prepare_dataset.py wrote beside their source.
    """
    return (path for path in entries_below(folder) if os.path.isfile(path))


def entries_below(folder: Path) -> Iterator[Path]:
    """As `files_below`, with what is no file either: links to nothing, pipes, sockets.

    A folder to which several links lead is read once. Raises `UserError` for one that cannot be.
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
        elif not _is_apart(path, folder, seen):
            waiting.append((path, _names_in(path, seen)))


def folders_in(folder: Path) -> list[str]:
    """Names of the folders in a folder that are data. Raises `UserError`."""
    names = _names_in(folder, set())
    paths = {name: folder / name for name in names}
    return [
        name for name, path in paths.items() if is_folder(path) and not is_there(path / MANIFEST)
    ]


def _names_in(folder: Path, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Names of what is in a folder, but of what is hidden. The folder is noted in `seen`."""
    try:
        about = folder.stat()
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)  # names alone: there may be a million
    except OSError as error:
        raise UserError(f"{folder} {fault_of(error)}; make it readable.") from error
    seen.add((about.st_dev, about.st_ino))
    return (name for name in names if not _is_hidden(name))


def _is_apart(path: Path, root: Path, seen: set[tuple[int, int]]) -> bool:
    """Whether a folder is no part of the data below `root`: it was written by prepare_dataset.py,
    or is a link to a folder that is read under its own name, or was read under another."""
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
