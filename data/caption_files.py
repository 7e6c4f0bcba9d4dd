"""Folders in which each picture has its caption in a file beside it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from data import kohya
from data.folder_scan import FolderContents
from data.folder_walk import entries_below, files_below
from data.rows import Row, content_of
from data.sidecars import ImageDetector, Sidecars
from data.source import Source
from data.splits import held_out_folders


def open_pairs(folder: Path, contents: FolderContents) -> Source:
    """The pictures of a folder, with what lies beside them."""
    held_out = held_out_folders(folder)
    rows = partial(text_pairs, folder, contents.sidecars, held_out)
    repeated = {
        path.relative_to(folder).as_posix(): all_of_it
        for path, all_of_it in contents.repeated.items()
    }
    return Source(
        str(folder),
        rows,
        contents.pictures,
        folders=((folder, "train"),),
        pairs=True,
        findings=(
            *contents.sidecars.findings(str(folder), contents.kinds),
            *kohya.findings(repeated),
        ),
        held_out=bool(held_out) and any(row.split == "test" for row in rows()),
        files=partial(files_below, folder),
    )


def text_pairs(folder: Path, sidecars: Sidecars, held_out: tuple[str, ...] = ()) -> Iterator[Row]:
    """Pictures with a caption file of the same name beside them, in the order of their names.

    `held_out`: what the names of pictures begin with that are not for training.
    """
    pictures = ImageDetector(sidecars)
    for path in entries_below(folder):
        if path not in pictures:
            continue
        name = path.relative_to(folder).as_posix()
        split = "test" if name.startswith(held_out) else "train"
        where, caption, fault = name, kohya.concept_of(path), None
        if note := sidecars.of(path):
            where = f"{name}, caption {note.name}"
            caption, fault = sidecars.read(note)
        elif caption is None:
            wanted = path.with_suffix(sidecars.suffixes[0]).name
            fault = f"has no caption file {wanted!r}; write one or move the picture away"
        yield Row(where, name, partial(content_of, path), caption, fault, split)
