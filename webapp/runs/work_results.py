"""What has come of the work on a set of pictures, as changes of its draft."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from core.file_names import safe_path
from core.paths import is_folder
from webapp.runs.draft import DONE, FAILED, SUGGESTED, TABLE, WRITTEN, Draft
from webapp.runs.findings import read_findings
from webapp.runs.pictures import PictureSet
from webapp.runs.process import log_lines
from webapp.runs.ready_set import is_ready
from webapp.runs.set_pictures import (
    CHECK_FINDINGS,
    READY_FINDINGS,
    as_lines,
    files_of,
    pictures_of,
)
from webapp.runs.work import CAPTIONS, CHECK, LOG, NEW_FINDINGS, PREPARE, SUGGEST, UNPACK, Work

ENDED = "It was ended before it was done."


def _unpacked(pictures: PictureSet, known: Draft, work: Work) -> Draft:
    if not is_folder(work.target):
        return known.with_source(work.place, state=FAILED, sentence=_why(pictures))
    below = f"{Path(work.target).name}/"
    count = sum(name.startswith(below) for name in files_of(pictures).pictures)
    warnings = [line for line in log_lines(pictures.path, LOG) if line.startswith("warning: ")]
    words = [
        f"{count:,} picture{'s' * (count != 1)}",
        *(line.removeprefix("warning: ") for line in warnings[:1]),
    ]
    if Path(work.place).parent == pictures.incoming:
        with suppress(OSError):
            Path(work.place).unlink(missing_ok=True)
    return known.with_source(work.place, state=DONE, sentence="; ".join(words))


def _captions_read(pictures: PictureSet, known: Draft, work: Work) -> Draft:
    found = read_findings(pictures.path / NEW_FINDINGS)
    if not found:
        return known.with_source(work.place, state=FAILED, sentence=_why(pictures))
    folder = Path(work.place).parent.relative_to(pictures.originals).as_posix()
    names = {name.lower(): name for name in reversed([*files_of(pictures).pictures])}
    stems = {str(PurePosixPath(lower).with_suffix("")): name for lower, name in names.items()}
    changes = {}
    for each in found.values():
        path = safe_path(f"{folder}/{each.name}").lower()
        name, caption = names.get(path) or stems.get(path), as_lines(each.caption)
        if name and caption and not _is_written(known, name):
            changes[name] = {"caption": caption, "origin": TABLE}
    sentence = f"{len(changes):,} caption{'s' * (len(changes) != 1)}"
    return known.with_pictures(changes).with_source(work.place, state=DONE, sentence=sentence)


def _is_written(known: Draft, name: str) -> bool:
    mine = known.of(name)
    return mine.caption is not None and mine.origin == WRITTEN


def _checked(pictures: PictureSet, known: Draft, work: Work) -> Draft:
    if _keep_findings(pictures, CHECK_FINDINGS):
        return known
    return replace(known, check_fault=_why(pictures))


def _prepared(pictures: PictureSet, known: Draft, work: Work) -> Draft:
    is_told = _keep_findings(pictures, READY_FINDINGS)
    if is_told or is_ready(pictures, Path(work.place)):
        return known
    return replace(known, check_fault=_why(pictures))


def _suggested(pictures: PictureSet, known: Draft, work: Work) -> Draft:
    """What was suggested counts even if not all of it came to an end."""
    found = read_findings(pictures.path / NEW_FINDINGS)
    without = {each.name for each in pictures_of(pictures, known) if not each.caption}
    changes = {
        name: {"caption": as_lines(each.caption), "origin": SUGGESTED}
        for name, each in found.items() if name in without
    }  # fmt: skip
    return replace(known.with_pictures(changes), check_fault="" if found else _why(pictures))


CONCLUSIONS = {
    UNPACK: _unpacked, CAPTIONS: _captions_read, CHECK: _checked, PREPARE: _prepared,
    SUGGEST: _suggested,
}  # fmt: skip


def _keep_findings(pictures: PictureSet, name: str) -> bool:
    try:
        (pictures.path / NEW_FINDINGS).replace(pictures.path / name)
    except OSError:
        return False
    return True


def _why(pictures: PictureSet) -> str:
    """The sentence with which the command ended."""
    lines = log_lines(pictures.path, LOG)
    return next((line[7:] for line in reversed(lines) if line.startswith("error: ")), ENDED)
