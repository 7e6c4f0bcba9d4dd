"""Splits of a data set, recognised by the names of files and folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path, PurePath

from data.folder_walk import folders_in
from data.index import Finding

# The names that `datasets` knows, mapped to ours.
SPLITS = dict.fromkeys(("train", "training"), "train") | dict.fromkeys(
    ("test", "testing", "eval", "evaluation", "validation", "valid", "val", "dev", "held_out"),
    "test",
)
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.\w+")  # the hub's naming scheme
UNREAD_NAMED = 20  # unread splits that are reported
FOLDERS_DEEP = 3  # levels of folders that are searched for splits


def parted(paths: Sequence[Path], folder: Path) -> tuple[list[tuple[Path, str]], list[Path]]:
    """Files with their splits, and files of splits that are neither training nor held out.

    A single file is for training, whatever its name.
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


def unread(folder: Path, paths: Sequence[Path], advice: str) -> tuple[Finding, ...]:
    """Warnings about files of splits that are neither training nor held out.

    `advice`: template of how to have a file read.
    """
    shards = ((SHARD.fullmatch(path.name), path.relative_to(folder)) for path in paths)
    splits = {match[1]: name for match, name in shards if match}
    several = islice(splits.items(), UNREAD_NAMED)
    return tuple(unread_split(name, advice.format(path)) for name, path in several)


def unread_split(name: str, way: str) -> Finding:
    return Finding(
        f"split {name!r}", "is not read: train is learned from, test and validation are held out; "
        f"{way} to read it", fault=False,
    )  # fmt: skip


def split_of(name: PurePath) -> str | None:
    """The split that a folder in the path, or the start of the file name, tells."""
    for part in name.parts[:-1]:
        if part.lower() in SPLITS:
            return SPLITS[part.lower()]
    for word, split in SPLITS.items():
        if re.match(rf"{word}([-._ \d]|$)", name.name, re.IGNORECASE):
            return split
    return None


def held_out_folders(folder: Path, deep: int = FOLDERS_DEEP) -> tuple[str, ...]:
    """Prefixes of held-out pictures, such as "test/": folders that have a training folder as a
    sibling."""
    names = folders_in(folder)
    trained = any(SPLITS.get(name.lower()) == "train" for name in names)
    prefixes = []
    for name in names:
        if trained and SPLITS.get(name.lower()) == "test":
            prefixes.append(f"{name}/")
        elif deep:
            prefixes += [f"{name}/{below}" for below in held_out_folders(folder / name, deep - 1)]
    return tuple(prefixes)
