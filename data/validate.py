"""Validation of a data set: all faults and warnings in one pass, before training."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

from core.errors import UserError
from core.file_names import PICTURE_SUFFIXES
from core.images import jpeg_of, perceptual_hash
from core.paths import fault_of
from core.printable import is_text, printable, quoted
from data.captions import CountTokens, caption_fault, texts_of, uncounted
from data.duplicates import note_duplicates
from data.folder_walk import entries_below
from data.images import (
    ImageFile,
    ImageFormat,
    SourceImage,
    Unreadable,
    mean_colour,
    opened,
    small,
)
from data.index import Finding, RowFacts, RowIndex
from data.rows import Row
from data.sidecars import TEXT_SUFFIXES
from data.source import Source
from data.splits import SPLITS

MIN_SIDE = 8  # pixels of one latent
MAX_LOST = 0.5  # share of a picture that a square crop may cut off without a warning
THUMBNAILS, THUMBNAIL_SIDE = 2_000, 112
BATCH = 64

# Called with each valid row, its number, its split and its prepared picture.
Keep = Callable[[Row, int, str, ImageFile], None]


@dataclass(frozen=True)
class RowCheck:
    """Result of examining one row."""

    row: Row
    facts: RowFacts
    findings: tuple[Finding, ...] = ()
    file: ImageFile | None = None  # the prepared picture

    @property
    def good(self) -> bool:
        return not any(finding.fault for finding in self.findings)


def examine(
    source: Source,
    index: RowIndex,
    *,
    resolution: int | None = None,
    count_tokens: CountTokens = uncounted,
    shape: ImageFormat | None = None,
    keep: Keep | None = None,
    held_out: float = 0.0,
    wrap: Callable[[Iterable], Iterable] = iter,
    thumbnails: bool = False,
    captions: bool = False,
) -> None:
    """Examine all rows in parallel and record their properties and findings in `index`.

    `resolution`: of training; smaller pictures get a warning. `shape`: format of the prepared files
    that `keep` receives. `held_out`: share of rows to assign to the split "test". `wrap`: adds a
    progress bar to the rows. `captions`: keep them in the index.
    """
    for finding in source.findings:
        index.note(finding)
    numbered = enumerate(wrap(_rows(source, index)), 1)
    drawn = min(1.0, THUMBNAILS / (source.total or THUMBNAILS)) if thumbnails else 0.0

    def check(item: tuple[int, Row]) -> tuple[int, RowCheck]:
        number, row = item
        return number, _examined(row, number, resolution, shape, held_out, drawn)

    for batch in _batches(_ahead(check, numbered)):
        for (number, each), counted in zip(batch, _token_counts(batch, count_tokens), strict=True):
            facts = replace(
                each.facts,
                tokens=max((count for count, _ in counted), default=0),
                text=_caption_in_json(each.row.caption) if captions else None,
            )
            index.add(number, facts, (*each.findings, *_unread(each.row, number, counted)))
            if keep and each.good:
                keep(each.row, number, facts.split, each.file)
    _note_on_the_whole(source, index)


def _note_on_the_whole(source: Source, index: RowIndex) -> None:
    """Findings that no single row shows."""
    note_loose_files(source, index)
    note_folders_that_sound_held_out(source, index)
    note_duplicates(index)
    _note_size(source, index)


def _caption_in_json(caption: object) -> bytes:
    texts = caption if isinstance(caption, list | tuple) else [caption]
    known = [text for text in texts if isinstance(text, str) and is_text(text)]
    return json.dumps(known[0] if len(known) == 1 else known or None).encode()


def _token_counts(
    batch: list[tuple[int, RowCheck]], count_tokens: CountTokens
) -> Iterator[list[tuple[int, str]]]:
    """For each row the counts of its captions, of all rows in one call; none of faulty rows."""
    texts = [texts_of(each.row.caption) if each.good else () for _, each in batch]
    counts = iter(count_tokens([text for captions in texts for text in captions]))
    for captions in texts:
        yield [next(counts) for _ in captions]


def _unread(row: Row, number: int, counted: list[tuple[int, str]]) -> Iterator[Finding]:
    """Warnings about captions beyond the tokens that the model reads."""
    for count, lost in counted:
        if lost:
            sentence = f"the caption has {count} tokens and {quoted(lost)} is not read; shorten it"
            yield _finding(row, number, sentence, False, "caption")


def _rows(source: Source, index: RowIndex) -> Iterator[Row]:
    """The rows of a source; its truncation is recorded as a fault of the source."""
    seen = False
    try:
        for row in source.rows():
            if row.breaks_off:
                index.note_end(Finding(row.where, row.fault or "breaks off", True))
            else:
                yield row
            seen = True
    except UserError as error:
        if not seen:
            raise
        index.note_end(Finding(source.name, str(error), True))


def _ahead(check: Callable, items: Iterator) -> Iterator:
    """Ordered parallel map by threads, a few items ahead: Pillow releases the GIL."""
    workers = os.cpu_count() or 1
    waiting: deque[Future] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(check, item))
            if len(waiting) >= 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _batches(items: Iterator) -> Iterator[list]:
    while batch := list(islice(items, BATCH)):
        yield batch


def _finding(row: Row, number: int, sentence: str, fault: bool, about: str) -> Finding:
    return Finding(row.where, sentence, fault, number, about=about)


def _examined(
    row: Row,
    number: int,
    resolution: int | None,
    shape: ImageFormat | None,
    held_out: float,
    drawn: float,
) -> RowCheck:
    """Examine one row. `drawn`: share of rows that get a thumbnail, beside those with findings."""
    facts = RowFacts(row.where, row.picture, row.split, part=row.split)
    content, picture, faults = _opened(row, shape)
    facts = replace(facts, bytes_before=len(content))
    findings = [_finding(row, number, sentence, True, about) for sentence, about in faults]
    if picture is None:
        return RowCheck(row, facts, tuple(findings))
    findings += [
        _finding(row, number, sentence, fault, "picture")
        for sentence, fault in _picture_findings(picture, resolution)
    ]
    reduced, digest = small(picture.rgb), hashlib.sha256(content).digest()
    in_sheet = findings or int.from_bytes(digest[-4:], "big") < drawn * 2**32
    facts = replace(
        facts,
        split=split_of(row, digest, held_out),
        width=picture.size[0],
        height=picture.size[1],
        thumbnail=jpeg_of(reduced, THUMBNAIL_SIDE) if in_sheet and drawn else None,
    )
    check = RowCheck(row, facts, tuple(findings), picture.file)
    if not check.good:  # compared with others only once it is fixed
        return check
    known = replace(
        facts,
        content=digest,
        caption=hashlib.sha256(repr(row.caption).encode()).digest(),
        look=perceptual_hash(reduced),
        tint=mean_colour(reduced),
        bytes_after=len(picture.file.content) if picture.file else 0,
    )
    return replace(check, facts=known)


def _opened(
    row: Row, shape: ImageFormat | None
) -> tuple[bytes, SourceImage | None, list[tuple[str, str]]]:
    """The file of a row, its picture if readable, and faults with what they are about."""
    if row.fault:
        return b"", None, [(row.fault, "")]
    content, picture, faults = b"", None, []
    try:
        content = row.content()
        picture = opened(content, shape)
    except FileNotFoundError as error:
        hint = str(error) if str(error).startswith(",") else ""
        faults.append(f"there is no file {quoted(row.picture)}{hint}; add it or delete the row")
    except OSError as error:
        faults.append(f"{quoted(row.picture)} {fault_of(error)}; fix it or delete the row")
    except Unreadable as error:
        faults.append(f"{quoted(row.picture)} {error}")
    found = [(fault, "picture") for fault in faults]
    if fault := caption_fault(row.caption):
        found.insert(0, (fault, "caption"))
    return content, picture, found


def split_of(row: Row, digest: bytes, held_out: float) -> str:
    """ "train" or "test", a function of the picture alone: added rows do not move others.

    `digest`: SHA-256 of the picture's file.
    """
    chosen = int.from_bytes(digest[:8], "big") < held_out * 2**64
    return "test" if chosen else row.split


def _picture_findings(picture: SourceImage, resolution: int | None) -> Iterator[tuple[str, bool]]:
    """Findings on a picture: a sentence, and whether it is a fault."""
    (width, height), written_side = picture.size, min(picture.rgb.size)
    size, short = f"the picture has {width} x {height} pixels", min(width, height)
    lost = 1 - short / max(width, height)
    if short < MIN_SIDE:
        yield f"{size}: too few to learn from; leave it out", True
        return
    if lost > MAX_LOST:
        yield f"{size}: a square crop loses {lost:.0%} of it; crop it yourself", False
    if resolution and short < resolution:
        advice = "find a larger one or lower --resolution"
        yield f"{size} and is blown up to {resolution}; {advice}", False
    elif resolution and written_side < resolution:
        advice = (
            f"{written_side} of its shorter side are left, fewer than --resolution {resolution}"
        )
        yield f"{size}, and {advice}; raise --max_side", False
    if picture.note:
        yield picture.note, False
    if picture.frames > 1:
        yield f"the picture moves: the first of its {picture.frames} frames is used", False


def note_loose_files(source: Source, index: RowIndex) -> None:
    """Warn about pictures that no row names, and caption files without a picture."""
    next(index.ask("CREATE INDEX by_picture ON rows (picture, part)"), None)
    beside = "SELECT EXISTS (SELECT 1 FROM rows WHERE picture = ? OR picture BETWEEN ? AND ?)"
    for folder, split in source.folders:
        for path in entries_below(folder):
            name, suffix = path.relative_to(folder), path.suffix.lower()
            whole, stem = printable(name.as_posix()), printable(name.with_suffix("").as_posix())
            if source.pairs:
                lost = suffix in TEXT_SUFFIXES and not index.one(
                    beside, stem, f"{stem}.", f"{stem}.{chr(0x10FFFF)}"
                )
                sentence = "there is no picture beside this caption; add it or delete the file"
            else:
                lost = suffix in PICTURE_SUFFIXES and not _is_named(
                    index, source, split, whole, stem
                )
                sentence = "no row names this picture, so nothing is learned from it"
            if lost:
                index.note(Finding(whole, sentence, fault=False))


def _is_named(index: RowIndex, source: Source, split: str, *names: str) -> bool:
    """Whether a row has one of these pictures. Several folders are splits, with separate names."""
    part = "AND part = ?" if source.folders[1:] else ""
    question = f"SELECT EXISTS (SELECT 1 FROM rows WHERE picture IN (?, ?) {part})"
    return index.one(question, *names, *([split] if part else []))


def note_folders_that_sound_held_out(source: Source, index: RowIndex) -> None:
    """Warn about folders such as "test/" without a folder "train/" beside them."""
    for word in (word for word, split in SPLITS.items() if split == "test"):
        question = "SELECT EXISTS (SELECT 1 FROM rows WHERE picture LIKE ? AND part = 'train')"
        if source.folders and index.one(question, f"{word}/%"):
            sentence = "is learned from, as no folder train is beside it; put the rest in one"
            index.note(Finding(f"{word}/", f"{sentence} to hold it out", fault=False))


def _note_size(source: Source, index: RowIndex) -> None:
    rows = index.one("SELECT COUNT(*) FROM rows WHERE split = 'train'")
    if rows == 0 and not index.broken_off:
        index.note(Finding(source.name, "has no rows; name the pictures that are there", True))
    elif rows == 1:
        sentence = "has one picture, which the model will learn by heart; add more"
        index.note(Finding(source.name, sentence, False))
