"""Which split of a data set a file belongs to, as its name or its folder tells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path, PurePath

from data.folder_walk import folders_in
from data.index import Finding

# The words that `datasets` knows, and what they are here.
SPLITS = dict.fromkeys(("train", "training"), "train") | dict.fromkeys(
    ("test", "testing", "eval", "evaluation", "validation", "valid", "val", "dev", "held_out"),
    "test",
)
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.\w+")  # as the hub names them
NAMED = 20  # splits that nothing is done with
FOLDERS_DEEP = 3  # levels of folders among which those of splits are looked for


def parted(paths: Sequence[Path], folder: Path) -> tuple[list[tuple[Path, str]], list[Path]]:
    """Files with their splits, and those of splits that are neither for training nor held out.

    One file is all there is, whatever its name.
    """
    named = [split_of(path.relative_to(folder)) if paths[1:] else None for path in paths]
    trained = "train" in named
    parts, others = [], []
    for path, split in zip(paths, named, strict=True):
        if trained and split is None and SHARD.fullmatch(path.name):
            others.append(path)
        else:
            parts.append((path, split or "train"))
    return parts, others


def unread(folder: Path, paths: Sequence[Path], giving: str) -> tuple[Finding, ...]:
    """What is said of files of splits that are neither for training nor held out.

    `giving`: what one does with a file to have it read.
    """
    shards = ((SHARD.fullmatch(path.name), path.relative_to(folder)) for path in paths)
    splits = {match[1]: name for match, name in shards if match}
    several = islice(splits.items(), NAMED)
    return tuple(unread_split(name, giving.format(path)) for name, path in several)


def unread_split(name: str, way: str) -> Finding:
    return Finding(
        f"split {name!r}", "is not read: train is learned from, test and validation are held out; "
        f"{way} to read it", fault=False,
    )  # fmt: skip


def split_of(name: PurePath) -> str | None:
    """The split that a name begins with, or that one of its folders is called."""
    for part in name.parts[:-1]:
        if part.lower() in SPLITS:
            return SPLITS[part.lower()]
    for word, split in SPLITS.items():
        if re.match(rf"{word}([-._ \d]|$)", name.name, re.IGNORECASE):
            return split
    return None


def held_out_folders(folder: Path, deep: int = FOLDERS_DEEP) -> tuple[str, ...]:
    """Folders of pictures that are not for training, such as "test/": one for training is beside.

    A name that begins with one of them is held out.
    """
    names = folders_in(folder)
    trained = any(SPLITS.get(name.lower()) == "train" for name in names)
    found = []
    for name in names:
        if trained and SPLITS.get(name.lower()) == "test":
            found.append(f"{name}/")
        elif deep:
            found += [f"{name}/{below}" for below in held_out_folders(folder / name, deep - 1)]
    return tuple(found)
