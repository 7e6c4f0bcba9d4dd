"""The pictures of a set, each with its caption, its draft and what a check has found of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

from core.bounded_json import JSONFault, loads
from core.file_names import PICTURE_SUFFIXES, TABLE_SUFFIXES
from core.paths import read_bytes
from core.printable import is_blank
from webapp.limits import MAX_CAPTION_CHARACTERS, MAX_SET_PICTURES
from webapp.runs import draft
from webapp.runs.draft import Draft
from webapp.runs.findings import Checked, read_findings
from webapp.runs.pictures import PictureSet

CHECK_FINDINGS, READY_FINDINGS = "findings.jsonl", "ready-findings.jsonl"
MAX_SIDECAR_BYTES = 2**20
CAPTION_SUFFIXES = (".txt", ".caption", ".json")
CAPTION_KEYS = ("text", "caption", "description", "prompt")  # in a .json file
TURNED = ".turned"  # below originals/: hidden from those who list it


@dataclass(frozen=True)
class SetPicture:
    """A picture of a set."""

    name: str  # its path in originals/
    stamp: int  # when its file was changed
    caption: str  # without the trigger word; lines are captions of their own
    origin: str  # of the caption
    left_out: bool
    turn: int  # degrees clockwise
    is_captioned: bool  # with the trigger word
    is_checked: bool = False
    width: int = 0  # 0 where it cannot be read, or was not checked
    height: int = 0
    faults: tuple[str, ...] = ()  # that keep it from being learned
    warnings: tuple[str, ...] = ()
    twin: str = ""  # an earlier picture that it is the same as, or like
    is_same: bool = False  # not only like

    @property
    def id(self) -> str:
        """Names its place in a page."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:12]

    @property
    def is_broken(self) -> bool:
        """Whether it cannot be shown."""
        return self.is_checked and not self.width

    @property
    def is_faulty(self) -> bool:
        """Whether it keeps the set from being ready."""
        return not self.left_out and bool(self.faults or not self.is_captioned)

    @property
    def needs_a_look(self) -> bool:
        return not self.left_out and bool(self.is_faulty or self.twin or self.warnings)


@dataclass(frozen=True)
class SetFiles:
    """Files of originals/ with when they were changed, by their paths there, sorted."""

    pictures: Mapping[str, int]
    others: Mapping[str, int]


def files_of(pictures: PictureSet) -> SetFiles:
    found: dict[str, int] = {}
    others: dict[str, int] = {}
    for name, stamp in _walk(pictures.originals):
        if name.lower().endswith(PICTURE_SUFFIXES):
            found[name] = stamp
        else:
            others[name] = stamp
    few = dict(islice(sorted(found.items()), MAX_SET_PICTURES))
    return SetFiles(few, dict(sorted(others.items())))


def tables_of(files: SetFiles) -> dict[str, int]:
    """Tables of captions: not what stands beside a picture and is its own."""
    stems = {_stem(name) for name in files.pictures}
    return {
        name: stamp for name, stamp in files.others.items()
        if name.lower().endswith(TABLE_SUFFIXES)
        and not (name.lower().endswith(".json") and _stem(name) in stems)
    }  # fmt: skip


def pictures_of(pictures: PictureSet, known: Draft) -> list[SetPicture]:
    """All pictures of a set, by name."""
    files = files_of(pictures)
    sidecars = {name.lower(): (name, stamp) for name, stamp in files.others.items()}
    written = read_findings(*(pictures.path / name for name in (CHECK_FINDINGS, READY_FINDINGS)))
    found = {original_of(name): each for name, each in written.items()}
    used = [name for name in files.pictures if not known.of(name).left_out]
    twins = _twins(used, found)
    bare = (_bare(pictures, name, stamp, known, sidecars) for name, stamp in files.pictures.items())
    return [
        _with_findings(each, found[each.name], known.trigger, twins) if each.name in found else each
        for each in bare
    ]


def _twins(used: Sequence[str], found: Mapping[str, Checked]) -> dict[str, tuple[str, bool]]:
    """Of pictures that are the same as an earlier one, or like it: that, and whether it is the
    same. Those that are left out are like none."""
    kept = set(used)
    first: dict[str, str] = {}
    twins: dict[str, tuple[str, bool]] = {}
    for name in used:
        if name not in found:
            continue
        same = first.setdefault(original_of(found[name].same_as) or name, name)
        like = (original_of(each.like) for each in found[name].findings if each.like)
        others = (each for each in like if each in kept)
        if other := same if same != name else next(others, ""):
            twins[name] = (other, same != name)
    return twins


def find_picture(all_of_them: Sequence[SetPicture], name: str) -> SetPicture | None:
    return next((each for each in all_of_them if each.name == name), None)


def effective_captions(caption: str, trigger: str) -> list[str]:
    """The captions that are learned: each line, with the trigger word before it."""
    lines = [line.strip() for line in caption.splitlines() if not is_blank(line)]
    if not trigger:
        return lines
    if not lines:
        return [trigger]
    return [line if line.startswith(trigger) else f"{trigger}, {line}" for line in lines]


def turned_path(name: str, turn: int) -> str:
    """Where the copy of a turned picture is, below originals/."""
    if not turn:
        return name
    suffix = ".jpg" if name.lower().endswith((".jpg", ".jpeg")) else ".png"
    return f"{TURNED}/{turn}/{name}{suffix}"


def original_of(path: str) -> str:
    """The name of the picture that a row of the table is about."""
    if not path.startswith(f"{TURNED}/"):
        return path
    return _stem(path.split("/", 2)[2])


def _bare(
    pictures: PictureSet,
    name: str,
    stamp: int,
    known: Draft,
    sidecars: Mapping[str, tuple[str, int]],
) -> SetPicture:
    """A picture without what was found of it."""
    mine = known.of(name)
    caption, origin = mine.caption, mine.origin
    if caption is None:
        caption, origin = _caption_beside(pictures.originals, name, sidecars), draft.FROM_FILE
    texts = effective_captions(caption, known.trigger)
    return SetPicture(name, stamp, caption, origin, mine.left_out, mine.turn, bool(texts))


def _with_findings(
    picture: SetPicture, found: Checked, trigger: str, twins: Mapping[str, tuple[str, bool]]
) -> SetPicture:
    """What was found of its caption counts only as long as that is the same."""
    now = effective_captions(picture.caption, trigger)
    then = found.caption if isinstance(found.caption, list) else [found.caption]
    unchanged = ("picture", "caption") if now == then else ("picture",)
    count = [each for each in found.findings if each.about in unchanged]
    twin, is_same = twins.get(picture.name, ("", False))
    return replace(
        picture,
        is_checked=True,
        width=found.width,
        height=found.height,
        faults=tuple(each.sentence for each in count if each.fault),
        warnings=tuple(each.sentence for each in count if not each.fault),
        twin=twin,
        is_same=is_same,
    )


def _caption_beside(folder: Path, name: str, sidecars: Mapping[str, tuple[str, int]]) -> str:
    """The caption in the file beside a picture; empty without one."""
    stem = _stem(name).lower()
    files = (sidecars[stem + suffix] for suffix in CAPTION_SUFFIXES if stem + suffix in sidecars)
    return next(filter(None, (_caption_in(f"{folder}/{path}", at) for path, at in files)), "")


@lru_cache(maxsize=5_000)
def _caption_in(path: str, stamp: int) -> str:
    """`stamp`: of the file, which is read once."""
    try:
        text = read_bytes(path, MAX_SIDECAR_BYTES).decode("utf-8-sig", errors="replace")
    except OSError:
        return ""
    text = _in_json(text) if path.lower().endswith(".json") else " ".join(text.split())
    return text[:MAX_CAPTION_CHARACTERS]


def _in_json(text: str) -> str:
    try:
        fields = loads(text)
    except JSONFault:
        return ""
    fields = fields if isinstance(fields, dict) else {}
    value = next((fields[key] for key in CAPTION_KEYS if fields.get(key)), "")
    return as_lines(value)


def as_lines(caption: object) -> str:
    """A caption, or several of a picture, as the page shows them: one on each line."""
    several = caption if isinstance(caption, list) else [caption]
    return "\n".join(" ".join(each.split()) for each in several if isinstance(each, str))


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _walk(folder: Path, below: str = "") -> Iterator[tuple[str, int]]:
    """Files with when they were changed; links and hidden files are left out."""
    try:
        with os.scandir(folder) as entries:
            here = [each for each in entries if not each.name.startswith(".")]
    except OSError:  # deleted meanwhile
        return
    for each in here:
        if each.is_dir(follow_symlinks=False):
            yield from _walk(Path(each.path), f"{below}{each.name}/")
        elif each.is_file(follow_symlinks=False):
            yield f"{below}{each.name}", each.stat(follow_symlinks=False).st_mtime_ns
