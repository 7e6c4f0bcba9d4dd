"""The record of what a process does for a set of pictures."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from core.bounded_json import JSONFault, loads
from core.paths import read_own
from core.run_process import read_process
from webapp.runs.pictures import PictureSet
from webapp.runs.process import ask_to_stop

LOG, PROCESS, WORK = "work.log", "work-process.json", "work.json"
NEW_FINDINGS = "new-findings.jsonl"  # until the work is done
UNPACK, CAPTIONS, CHECK = "unpack", "captions", "check"
PREPARE, SUGGEST = "prepare", "suggest"
KINDS = (UNPACK, CAPTIONS, CHECK, PREPARE, SUGGEST)
MAX_WORK_BYTES = 2**16


@dataclass(frozen=True)
class Work:
    """What a process does for a set."""

    kind: str
    place: str = ""  # of the source that it reads
    target: str = ""  # the folder that it writes


READ = TypeAdapter(Work)


def current(pictures: PictureSet) -> Work | None:
    """What is being done for a set."""
    process = read_process(pictures.path, PROCESS)
    return read_work(pictures) if process and process.alive else None


def stop(pictures: PictureSet) -> None:
    ask_to_stop(pictures.path, PROCESS)


def read_work(pictures: PictureSet) -> Work | None:
    try:
        found = loads(read_own(pictures.path, WORK, MAX_WORK_BYTES))
        work = READ.validate_python(found)
    except (OSError, JSONFault, ValidationError):
        return None
    return work if work.kind in KINDS else None


def forget_work(pictures: PictureSet) -> None:
    with suppress(OSError):
        (pictures.path / WORK).unlink(missing_ok=True)
