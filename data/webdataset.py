"""WebDataset: tar shards in which the files of a sample are adjacent.

Pictures are read in place; nothing is unpacked.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from core.errors import UserError, is_ours, reason_of
from core.file_names import PICTURE_SUFFIXES
from core.paths import opened, size
from data.archives import BROKEN, members
from data.index import Finding
from data.limits import CAPTION_BYTES, PICTURE_BYTES
from data.rows import Row
from data.sidecars import CAPTION_SUFFIXES, Sidecars
from data.source import ReadOptions, Source
from data.splits import parted, unread

JUDGED = 100  # samples that decide whether an archive is a shard
MAX_FILES = 1_000  # of a sample; more are taken for another sample


class ArchiveMember(NamedTuple):
    """A file in an archive."""

    name: PurePosixPath
    offset: int
    size: int
    fault: str | None = None  # why it cannot be read in place

    @property
    def key(self) -> PurePosixPath:
        """Key of its sample: the name up to the first dot."""
        return self.name.with_name(self.name.name.split(".")[0] or self.name.name)

    @property
    def kind(self) -> str:
        return self.name.suffix.lower()


def is_shard(path: Path) -> bool:
    """Whether most of the first pictures of a tar archive have captions in their sample."""
    kinds = [{member.kind for member in sample} for sample in _first_samples(path)]
    pictures = [each for each in kinds if each.intersection(PICTURE_SUFFIXES)]
    captioned = [each for each in pictures if each.intersection(CAPTION_SUFFIXES)]
    return len(captioned) * 2 > len(pictures)


def open_shards(name: str, folder: Path, paths: list[Path], options: ReadOptions) -> Source:
    """Open the samples of one or several shards."""
    parts, others = parted(paths, folder)
    sidecars = Sidecars.chosen_by(options)
    return Source(
        name,
        partial(_rows, parts, sidecars),
        sum(_count(path) for path, _ in parts),
        findings=(
            *_findings(name, parts[0][0], sidecars),
            *unread(folder, others, options.advice),
        ),
        held_out=any(split == "test" for _, split in parts),
        files=lambda: paths,
    )


def _count(path: Path) -> int:
    """Number of pictures in an archive, as far as it is readable."""
    count = 0
    with suppress(UserError):
        for member in _members(path):
            count += member.kind in PICTURE_SUFFIXES
    return count


def _rows(parts: list[tuple[Path, str]], sidecars: Sidecars) -> Iterator[Row]:
    for path, split in parts:
        for sample in _samples(path):
            for picture in sample:
                if picture.kind in PICTURE_SUFFIXES:
                    yield _row(path, picture, sample, sidecars, split)


def _row(
    path: Path, picture: ArchiveMember, sample: list[ArchiveMember], sidecars: Sidecars, split: str
) -> Row:
    where, caption, fault = f"{path.name}, {picture.name}", None, picture.fault
    note = _caption_of(picture, sample, sidecars)
    if note is None:
        fault = fault or "has no caption (.txt or .json) beside it in the archive"
    else:
        text = _content(path, note.offset, min(note.size, CAPTION_BYTES + 1))
        caption, wrong = sidecars.caption(text, note.name.name)
        fault = fault or note.fault or wrong
    content = partial(_content, path, picture.offset, picture.size)
    return Row(where, str(picture.name), content, caption, fault, split)


def _caption_of(
    picture: ArchiveMember, sample: list[ArchiveMember], sidecars: Sidecars
) -> ArchiveMember | None:
    """The caption file with the picture's stem, else the first of its sample."""
    notes = [each for kind in sidecars.suffixes for each in sample if each.kind == kind]
    own = (each for each in notes if each.name.stem == picture.name.stem)
    return next(own, notes[0] if notes else None)


def _content(path: Path, offset: int, size: int) -> bytes:
    with opened(path) as file:
        file.seek(offset)
        return file.read(size)


def _samples(path: Path) -> Iterator[list[ArchiveMember]]:
    """Samples: runs of files with the same key."""
    for _, files in groupby(_members(path), lambda member: member.key):
        while several := list(islice(files, MAX_FILES)):
            yield several


def _members(path: Path) -> Iterator[ArchiveMember]:
    """Files in an archive. Raises `UserError` if it is truncated or compressed."""
    try:
        with opened(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in members(archive):
                name = PurePosixPath(member.name)
                if not member.isdir() and name.name and not _is_hidden(name):
                    yield ArchiveMember(
                        name, member.offset_data, member.size, _member_fault(member)
                    )
    except BROKEN as error:
        if is_ours(error):
            raise
        raise UserError(f"{path} cannot be read ({reason_of(error)}); fetch it again.") from error


def _is_hidden(name: PurePosixPath) -> bool:
    return any(part.startswith(".") and part != ".." for part in name.parts)


def _member_fault(member: tarfile.TarInfo) -> str | None:
    if not member.isreg():
        return "is a link in the archive; pack the file itself"
    if member.size > PICTURE_BYTES:
        return f"has more than {size(PICTURE_BYTES)}; reduce it"
    return "is stored with holes in the archive; pack it again" if member.issparse() else None


def _first_samples(path: Path) -> list[list[ArchiveMember]]:
    samples = []
    with suppress(UserError):  # truncation is reported by the rows
        for sample in islice(_samples(path), JUDGED):
            samples.append(sample)
    return samples


def _findings(name: str, shard: Path, sidecars: Sidecars) -> tuple[Finding, ...]:
    """A warning if pictures have captions of several kinds."""
    samples = _first_samples(shard)
    return sidecars.findings(name, {member.kind for sample in samples for member in sample})
