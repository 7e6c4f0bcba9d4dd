"""What lies in the folders of a source, and is not read as it may have been meant."""

from __future__ import annotations

from core.printable import printable
from data.folder_walk import entries_below
from data.index import Finding, RowIndex
from data.rows import PICTURE_SUFFIXES
from data.sidecars import TEXT_SUFFIXES
from data.source import Source
from data.splits import SPLITS


def note_loose_files(source: Source, ledger: RowIndex) -> None:
    """Pictures that no row names, and caption files without a picture."""
    next(ledger.ask("CREATE INDEX by_picture ON rows (picture, part)"), None)
    beside = "SELECT EXISTS (SELECT 1 FROM rows WHERE picture = ? OR picture BETWEEN ? AND ?)"
    for folder, split in source.folders:
        for path in entries_below(folder):
            name, suffix = path.relative_to(folder), path.suffix.lower()
            whole, stem = printable(name.as_posix()), printable(name.with_suffix("").as_posix())
            if source.pairs:
                lost = suffix in TEXT_SUFFIXES and not ledger.one(
                    beside, stem, f"{stem}.", f"{stem}.{chr(0x10FFFF)}"
                )
                sentence = "there is no picture beside this caption; add it or delete the file"
            else:
                lost = suffix in PICTURE_SUFFIXES and not _is_named(
                    ledger, source, split, whole, stem
                )
                sentence = "no row names this picture, so nothing is learned from it"
            if lost:
                ledger.note(Finding(whole, sentence, fault=False))


def _is_named(ledger: RowIndex, source: Source, split: str, *names: str) -> bool:
    """Whether a row has a picture of one of two names. Each folder of several is a split, and has
    names of its own."""
    part = "AND part = ?" if source.folders[1:] else ""
    question = f"SELECT EXISTS (SELECT 1 FROM rows WHERE picture IN (?, ?) {part})"
    return ledger.one(question, *names, *([split] if part else []))


def note_folders_that_sound_held_out(source: Source, ledger: RowIndex) -> None:
    """Folders such as "test/", where the others are not in one called "train/"."""
    for word in (word for word, split in SPLITS.items() if split == "test"):
        question = "SELECT EXISTS (SELECT 1 FROM rows WHERE picture LIKE ? AND part = 'train')"
        if source.folders and ledger.one(question, f"{word}/%"):
            sentence = "is learned from, as no folder train is beside it; put the rest in one"
            ledger.note(Finding(f"{word}/", f"{sentence} to hold it out", fault=False))
