"""What is done with a set of pictures by processes of their own: read, checked, made ready.

One after the other. What is next is read from the files: so it goes on after the app, the process,
or both were killed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from pydantic import TypeAdapter, ValidationError

from core.bounded_json import JSONFault, loads
from core.errors import UserError
from core.file_names import safe_part, safe_path
from core.files import replaced
from core.paths import is_file, is_folder, read_own
from core.run_process import read_process
from webapp.runs.draft import DONE, FAILED, SUGGESTED, TABLE, WAITING, WRITTEN, AddedSource, Draft
from webapp.runs.findings import read_findings
from webapp.runs.pictures import PictureSet
from webapp.runs.process import Commands, ask_to_stop, log_lines
from webapp.runs.set_pictures import (
    CHECK_FINDINGS,
    READY_FINDINGS,
    SetPicture,
    as_lines,
    effective_captions,
    files_of,
    pictures_of,
    tables_of,
    turned_path,
)
from webapp.runs.thumbnails import make_turned

COMMAND = "prepare_dataset.py"
LOG, PROCESS, WORK = "work.log", "work-process.json", "work.json"
NEW_FINDINGS = "new-findings.jsonl"  # until the work is done
CHECK_TABLE, SUGGEST_TABLE, READY_TABLE = "check.jsonl", "suggest.jsonl", "ready-{}.jsonl"
UNPACK, CAPTIONS, CHECK = "unpack", "captions", "check"
PREPARE, SUGGEST = "prepare", "suggest"
UNWRITTEN = "a picture without a caption"  # stands for none, so that its picture is checked
MAX_WORK_BYTES = 2**16
MAX_AT_ONCE = 10  # pieces of work that end as soon as they are started
MAX_MANIFEST_BYTES = 2**20
USUAL_HELD_OUT = 0.1
FEW = 20  # pictures, of which none is held out
ENDED = "It was ended before it was done."
BUSY = "These pictures are being read or checked. Wait until that is done."


@dataclass(frozen=True)
class Work:
    """What a process does for a set."""

    kind: str
    place: str = ""  # of the source that it reads
    target: str = ""  # the folder that it writes


READ = TypeAdapter(Work)


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
            if not _read_work(pictures):
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
        if work := _read_work(pictures):
            known = CONCLUSIONS[work.kind](pictures, known, work)
            _forget_work(pictures)
        known = _with_tables(pictures, known)
        if source := next((each for each in known.sources if each.state == WAITING), None):
            return self._reading(pictures, known, source)
        names = [*files_of(pictures).pictures]
        identity = _digest("\n".join(names))
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
        _write(table, _table(rows))
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
            _write(table, _table(rows))
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
            _forget_work(pictures)
            raise


def current(pictures: PictureSet) -> Work | None:
    """What is being done for a set."""
    process = read_process(pictures.path, PROCESS)
    return _read_work(pictures) if process and process.alive else None


def stop(pictures: PictureSet) -> None:
    ask_to_stop(pictures.path, PROCESS)


def used_pictures(all_of_them: Sequence[SetPicture]) -> list[SetPicture]:
    """Those that are learned. Raises UserError where something has to be mended first."""
    used = [each for each in all_of_them if not each.left_out]
    if not used:
        raise UserError("There is no picture to learn from. Add some.")
    if faulty := [each for each in used if each.is_faulty]:
        more = f" and {len(faulty) - 1:,} more" if faulty[1:] else ""
        raise UserError(
            f"{faulty[0].name!r:.200}{more} cannot be learned from yet. Mend what its card says, "
            "or leave it out."
        )
    return used


def ready_table(
    pictures: PictureSet, known: Draft, used: Sequence[SetPicture]
) -> tuple[Path, str, float]:
    """The table of what is to be learned, its text, and the share that is held out.

    Its name tells what is in it, and what was made of it names it.
    """
    text = _table([
        (turned_path(each.name, each.turn), effective_captions(each.caption, known.trigger))
        for each in used
    ])  # fmt: skip
    share = held_out_share(known, len(used))
    return pictures.path / READY_TABLE.format(_digest(f"{share:g}\n{text}")), text, share


def is_made_ready(pictures: PictureSet, known: Draft, all_of_them: Sequence[SetPicture]) -> bool:
    """Whether the data set is there, and of the pictures and captions of now."""
    try:
        return is_ready(pictures, ready_table(pictures, known, used_pictures(all_of_them))[0])
    except UserError:
        return False


def held_out_share(known: Draft, count: int) -> float:
    if known.held_out is not None:
        return known.held_out
    return 0.0 if count < FEW else USUAL_HELD_OUT


def is_ready(pictures: PictureSet, table: Path) -> bool:
    """Whether the data set is what this table makes of the pictures."""
    try:
        made = loads(read_own(pictures.ready, ".prepared.json", MAX_MANIFEST_BYTES))
    except (OSError, JSONFault):
        return False
    source = made.get("source") if isinstance(made, dict) else None
    return isinstance(source, str) and PurePosixPath(source).name == table.name


def _unpacked(pictures: PictureSet, known: Draft, work: Work) -> Draft:
    if not is_folder(work.target):
        return known.with_source(work.place, state=FAILED, sentence=_why(pictures))
    below = f"{Path(work.target).name}/"
    count = sum(name.startswith(below) for name in files_of(pictures).pictures)
    warnings = [line for line in log_lines(pictures.path, LOG) if line.startswith("warning: ")]
    words = [f"{count:,} pictures", *(line.removeprefix("warning: ") for line in warnings[:1])]
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
    sentence = f"{len(changes):,} captions"
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


def _table(rows: Sequence[tuple[str, list[str]]]) -> str:
    lines = ({"file_name": name, "text": texts if texts[1:] else texts[0]} for name, texts in rows)
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)


def _write(path: Path, text: str) -> None:
    if is_file(path) and path.stat().st_size == len(text.encode()) and path.read_text() == text:
        return
    with replaced(path, durable=False) as staged:
        staged.write_text(text, encoding="utf-8")


def _read_work(pictures: PictureSet) -> Work | None:
    try:
        found = loads(read_own(pictures.path, WORK, MAX_WORK_BYTES))
        work = READ.validate_python(found)
    except (OSError, JSONFault, ValidationError):
        return None
    return work if work.kind in CONCLUSIONS else None


def _forget_work(pictures: PictureSet) -> None:
    with suppress(OSError):
        (pictures.path / WORK).unlink(missing_ok=True)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
