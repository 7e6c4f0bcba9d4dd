"""What a check has found of each picture of a set: the lines that prepare_dataset.py wrote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from core.bounded_json import JSONFault, loads
from core.paths import opened
from core.printable import printable
from webapp.limits import MAX_FINDINGS_BYTES


@dataclass(frozen=True)
class Finding:
    """A fault or a warning of one picture."""

    sentence: str
    fault: bool
    about: str  # "caption", "picture" or "duplicate"
    like: str  # the picture that a duplicate is like


@dataclass(frozen=True)
class Checked:
    """A picture as a check has found it."""

    name: str
    width: int  # 0 where it cannot be read
    height: int
    caption: object  # as it was then
    same_as: str  # an earlier picture with the same file
    findings: tuple[Finding, ...]


def read_findings(*paths: Path) -> dict[str, Checked]:
    """What was found, by name; of a later file where several tell of a picture.

    Empty where no check has come to an end.
    """
    known: dict[str, Checked] = {}
    stamps = sorted((path.stat().st_mtime_ns, path) for path in paths if path.is_file())
    for stamp, path in stamps:
        known |= _read(path, stamp)
    return known


@lru_cache(maxsize=8)
def _read(path: Path, stamp: int) -> dict[str, Checked]:
    """`stamp`: of the file, which is read once."""
    try:
        return {each.name: each for each in _checked(path)}
    except OSError:
        return {}


def _checked(path: Path) -> Iterator[Checked]:
    left = MAX_FINDINGS_BYTES
    with opened(path) as file:
        for line in file:
            left -= len(line)
            try:
                found = loads(line)
            except JSONFault:
                continue
            if left < 0 or not isinstance(found, dict) or not isinstance(found.get("file"), str):
                return  # what follows is about the set as a whole
            yield Checked(
                found["file"], _side(found.get("width")), _side(found.get("height")),
                found.get("caption"), str(found.get("same_as") or ""),
                tuple(map(_finding, found.get("findings") or ())),
            )  # fmt: skip


def _finding(found: dict) -> Finding:
    sentence = printable(str(found.get("sentence")))
    return Finding(
        sentence[:1].upper() + sentence[1:],  # the command writes it after a place
        found.get("fault") is True,
        str(found.get("about")),
        str(found.get("like") or ""),
    )


def _side(value: object) -> int:
    return value if type(value) is int and value > 0 else 0
