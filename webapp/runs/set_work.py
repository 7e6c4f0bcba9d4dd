"""What is done with a set of pictures by processes of their own: read, checked, made ready.

One after the other. What is next is read from the files: so it goes on after the app, the process,
or both were killed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from core.errors import UserError
from core.file_names import safe_part
from core.files import replaced
from core.paths import is_file, is_folder
from webapp.runs.draft import FAILED, WAITING, AddedSource, Draft
from webapp.runs.pictures import PictureSet
from webapp.runs.process import Commands
from webapp.runs.ready_set import (
    READY_TABLE,
    digest_of,
    is_ready,
    ready_table,
    table_of,
    used_pictures,
)
from webapp.runs.set_pictures import (
    effective_captions,
    files_of,
    pictures_of,
    tables_of,
)
from webapp.runs.thumbnails import make_turned
from webapp.runs.work import (
    CAPTIONS,
    CHECK,
    LOG,
    NEW_FINDINGS,
    PREPARE,
    PROCESS,
    SUGGEST,
    UNPACK,
    WORK,
    Work,
    current,
    forget_work,
    read_work,
)
from webapp.runs.work_results import CONCLUSIONS

COMMAND = "prepare_dataset.py"
CHECK_TABLE, SUGGEST_TABLE = "check.jsonl", "suggest.jsonl"
UNWRITTEN = "a picture without a caption"  # stands for none, so that its picture is checked
MAX_AT_ONCE = 10  # pieces of work that end as soon as they are started
BUSY = "These pictures are being read or checked. Wait until that is done."


class SetWork:
    """Starts, follows and concludes the work of sets."""

    def __init__(self, commands: Commands, captioner: Path | None = None):
        """`captioner`: the folder of a model that writes captions."""
        self._commands, self._captioner = commands, captioner

    def go_on(self, pictures: PictureSet) -> Work | None:
        """Conclude work that has ended, start what is next, and say what is being done now.

        Raises UserError.
        """
        for _ in range(MAX_AT_ONCE):
            if work := current(pictures):
                return work
            pictures.change(partial(self._advanced, pictures))
            if not read_work(pictures):
                return None
        return None

    def check_again(self, pictures: PictureSet) -> None:
        pictures.change(lambda known: replace(known, checked="", check_fault=""))

    def make_ready(self, pictures: PictureSet) -> None:
        """Write the data set, unless it is there. Raises UserError."""
        pictures.change(partial(self._preparing, pictures))

    def suggest(self, pictures: PictureSet) -> None:
        """Have captions written for pictures without one. Raises UserError."""
        pictures.change(partial(self._suggesting, pictures))

    def _advanced(self, pictures: PictureSet, known: Draft) -> Draft:
        if current(pictures):  # another one was quicker
            return known
        if work := read_work(pictures):
            known = CONCLUSIONS[work.kind](pictures, known, work)
            forget_work(pictures)
        known = _with_tables(pictures, known)
        if source := next((each for each in known.sources if each.state == WAITING), None):
            return self._reading(pictures, known, source)
        names = [*files_of(pictures).pictures]
        identity = digest_of("\n".join(names))
        if names and known.checked != identity:
            self._start_check(pictures, known)
            return replace(known, checked=identity, check_fault="")
        return known

    def _reading(self, pictures: PictureSet, known: Draft, source: AddedSource) -> Draft:
        try:
            if source.is_table:
                self._start(pictures, Work(CAPTIONS, source.place), [source.place, "--check"])
            else:
                name = safe_part(_bare_name(source.place)) or "pictures"
                target = str(pictures.originals / pictures.free_original(name))
                self._start(
                    pictures, Work(UNPACK, source.place, target), [source.place, "--unpack", target]
                )
        except UserError as error:
            return known.with_source(source.place, state=FAILED, sentence=str(error))
        return known

    def _start_check(self, pictures: PictureSet, known: Draft) -> None:
        rows = [
            (each.name, effective_captions(each.caption, known.trigger) or [UNWRITTEN])
            for each in pictures_of(pictures, known)
        ]
        table = pictures.path / CHECK_TABLE
        _write(table, table_of(rows))
        options = [str(table), "--images", str(pictures.originals), "--check"]
        self._start(pictures, Work(CHECK), options)

    def _preparing(self, pictures: PictureSet, known: Draft) -> Draft:
        if current(pictures):
            raise UserError(BUSY)
        used = used_pictures(pictures_of(pictures, known))
        table, text, share = ready_table(pictures, known, used)
        if is_ready(pictures, table):
            return known
        for each in used:
            make_turned(pictures, each.name, each.turn)
        for old in pictures.path.glob(READY_TABLE.format("*")):
            old.unlink(missing_ok=True)
        _write(table, text)
        options = [str(table), "--images", str(pictures.originals), "--output",
                   str(pictures.ready), "--overwrite", "--held_out", f"{share:g}"]  # fmt: skip
        self._start(pictures, Work(PREPARE, str(table)), options)
        return replace(known, check_fault="")

    def _suggesting(self, pictures: PictureSet, known: Draft) -> Draft:
        if current(pictures):
            raise UserError(BUSY)
        rows = [
            (each.name, [UNWRITTEN])
            for each in pictures_of(pictures, known)
            if not each.caption and not each.left_out and not each.is_broken
        ]
        if rows and self._captioner:
            table = pictures.path / SUGGEST_TABLE
            _write(table, table_of(rows))
            options = [str(table), "--images", str(pictures.originals), "--captioner",
                       str(self._captioner)]  # fmt: skip
            self._start(pictures, Work(SUGGEST), options)
        return replace(known, check_fault="")

    def _start(self, pictures: PictureSet, work: Work, options: Sequence[str]) -> None:
        """Raises UserError."""
        with suppress(OSError):
            (pictures.path / NEW_FINDINGS).unlink(missing_ok=True)
            (pictures.path / LOG).unlink(missing_ok=True)
        _write(pictures.path / WORK, json.dumps(asdict(work)))
        findings = ["--findings", str(pictures.path / NEW_FINDINGS)]
        try:
            words = [*options, *(findings if work.kind != UNPACK else ())]
            self._commands.start(COMMAND, words, pictures.path, LOG, PROCESS)
        except UserError:
            forget_work(pictures)
            raise


def _with_tables(pictures: PictureSet, known: Draft) -> Draft:
    """With the tables among the originals that were not read, or have changed since."""
    stamps = {each.place: each.stamp for each in known.sources}
    tables = {str(pictures.originals / n): at for n, at in tables_of(files_of(pictures)).items()}
    fresh = {place: at for place, at in tables.items() if stamps.get(place) != at}
    others = (each for each in known.sources if each.place not in fresh)
    added = (AddedSource(place, True, at) for place, at in fresh.items())
    return replace(known, sources=(*others, *added)) if fresh else known


def _bare_name(place: str) -> str:
    """The name of an archive, table or folder without what tells its kind."""
    path = Path(place)
    if is_folder(path):
        return path.resolve().name
    return path.name.removesuffix(path.suffix).removesuffix(".tar")


def _write(path: Path, text: str) -> None:
    if is_file(path) and path.stat().st_size == len(text.encode()) and path.read_text() == text:
        return
    with replaced(path, durable=False) as staged:
        staged.write_text(text, encoding="utf-8")
