"""Formats of kohya's scripts: folders named "10_sks dog", and JSON metadata by picture."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePosixPath

from core.printable import quoted
from data.index import Finding
from data.json_tables import catalogue
from data.rows import LOOKED_AT, TableEntry

FOLDER = re.compile(r"(\d{1,3})_(\S.*)")
NAMED = 5  # folders in a message
FIELDS = {"image_id", "caption", "tags", "train_resolution"}


def concept_of(picture: Path) -> str | None:
    """Default caption of a picture: the name of its folder without the repeats."""
    return _concept(picture.parent.name)


def _concept(folder: str) -> str | None:
    named = FOLDER.fullmatch(folder)
    return " ".join(named[2].split()) if named else None


def findings(folders: Mapping[str, bool]) -> tuple[Finding, ...]:
    """Warnings about kohya folders. `folders`: whether all their pictures have captions."""
    if not folders:
        return ()
    once = Finding(
        _named(folders), "kohya's scripts repeat these pictures as often as the folder's name "
        "says; here each is read once, so train for more epochs", fault=False,
    )  # fmt: skip
    uncaptioned = [name for name, captioned in folders.items() if not captioned]
    if not uncaptioned:
        return (once,)
    concept = _concept(PurePosixPath(uncaptioned[0]).name)
    return once, Finding(
        _named(uncaptioned), "pictures without a caption file are called as their folder is, such "
        f"as {quoted(concept)}; write caption files to say more", fault=False,
    )  # fmt: skip


def _named(folders: Collection[str]) -> str:
    first, more = list(islice(folders, NAMED)), len(folders) - NAMED
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")


def is_metadata(path: Path, encoding: str) -> bool:
    """Whether a JSON file is kohya's metadata: captions, tags and sizes by picture."""
    names = {
        name for entry in islice(catalogue(path, encoding), LOOKED_AT) for name in entry.fields
    }
    return "tags" in names and names <= FIELDS


def metadata(path: Path, encoding: str) -> Iterator[TableEntry]:
    """Entries by picture; "text" joins caption and tags as kohya's scripts do."""
    for entry in catalogue(path, encoding):
        texts = [entry.fields.get(name) for name in ("caption", "tags")]
        text = ", ".join(each for each in texts if isinstance(each, str) and each.strip())
        yield replace(entry, fields={**entry.fields, "text": text or None})
