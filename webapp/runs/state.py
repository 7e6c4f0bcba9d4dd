"""The state of a run, read from its files and its process whenever it is asked for.

Nothing is remembered: so it is true after the app, the run, or both were killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.bounded_json import JSONFault, loads
from core.paths import read_own
from core.run_folder import FILE as LOG
from core.run_folder import checkpoints_in, records_in
from core.run_process import FILE as PROCESS
from core.run_process import RunProcess, read_process
from webapp.runs.folder import RunFolder, Teaching
from webapp.runs.process import log_lines

TRAIN_LOG, SCORE_LOG, SCORE_PROCESS = "train.log", "scoring.log", "scoring.json"
STOP_FILE = "stop.json"  # names the process that was asked to stop
MAX_RUN_BYTES = 4 * 2**20
MAX_LOG_BYTES = 64 * 2**20

QUEUED, STARTING, TRAINING, STOPPING = "queued", "starting", "training", "stopping"
PAUSED, KILLED, FAILED, FINISHED = "paused", "killed", "failed", "finished"
SCORING, DRAFT = "scoring", "draft"
LIVE = (STARTING, TRAINING, STOPPING)  # a process trains it


@dataclass(frozen=True)
class RunState:
    """What a run does or has done."""

    folder: RunFolder
    status: str
    teaching: Teaching | None
    process: RunProcess | None  # that trains it, or trained it last
    manifest: dict = field(default_factory=dict)  # run.json of the finished model; {} without
    records: tuple[dict, ...] = ()  # of log.jsonl, by step
    checkpoints: tuple[int, ...] = ()  # their steps

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def step(self) -> int:
        """Steps that are known to be done."""
        done = [record["step"] for record in self.records[-2:]]
        return max([*done, *self.checkpoints[-1:], _number(self.manifest.get("steps"))])

    @property
    def steps(self) -> int | None:
        """Steps of the whole run, if that is known."""
        options = self.teaching.options if self.teaching else ()
        options = options or (self.process.command if self.process else ())
        wanted = option_of(options, "--max_train_steps")
        if wanted and wanted.isdecimal():
            return int(wanted)
        return _number(self.manifest.get("steps")) or None

    @property
    def seconds_left(self) -> float | None:
        left = next(
            (r["seconds_left"] for r in reversed(self.records) if "seconds_left" in r), None
        )
        return float(left) if isinstance(left, int | float) and self.is_live else None

    @property
    def is_live(self) -> bool:
        return self.status in LIVE

    @property
    def is_model(self) -> bool:
        """Whether its folder holds a finished model, of this run or of an earlier part of it."""
        return bool(self.manifest)

    @property
    def can_resume(self) -> bool:
        return self.status in (PAUSED, KILLED, FAILED) and self.teaching is not None

    @property
    def newest(self) -> Path | None:
        """The newest state that can draw: the model where it is finished, else a checkpoint."""
        if self.status in (FINISHED, SCORING):
            return self.folder.path
        found = checkpoints_in(self.folder.path)
        return found[max(found)] if found else self.folder.path if self.is_model else None

    @property
    def sentence(self) -> str:
        """Why it ended, in its own words."""
        if self.process and self.process.ended:
            return self.process.ended
        return _error_in(self.folder.path) if self.status == FAILED else ""


def state_of(folder: RunFolder) -> RunState:
    """The state of a run by now."""
    path = folder.path
    process, teaching = read_process(path, PROCESS), folder.teaching
    manifest, records = _manifest(path), tuple(_records(path))
    checkpoints = tuple(checkpoints_in(path))
    status = _status(path, process, teaching, manifest, records, checkpoints)
    return RunState(folder, status, teaching, process, manifest, records, checkpoints)


def _status(
    path: Path, process: RunProcess | None, teaching: Teaching | None, manifest: dict,
    records: tuple[dict, ...], checkpoints: tuple[int, ...],
) -> str:  # fmt: skip
    if process and process.alive:
        if is_asked_to_stop(path, process):
            return STOPPING
        return TRAINING if _changed_since(path / LOG, process.started) else STARTING
    if teaching and teaching.queued:
        return QUEUED
    if process and process.ended:
        return PAUSED if process.stopped else FAILED
    if manifest and _covers(manifest, records, checkpoints):
        scoring = read_process(path, SCORE_PROCESS)
        return SCORING if scoring and scoring.alive else FINISHED
    if process:
        return FAILED if _error_in(path) else KILLED
    return PAUSED if checkpoints else DRAFT if teaching else KILLED


def _covers(manifest: dict, records: tuple[dict, ...], checkpoints: tuple[int, ...]) -> bool:
    """Whether the model in the folder is the end of what was trained there."""
    trained = max([*checkpoints[-1:], *(record["step"] for record in records[-2:])], default=0)
    return _number(manifest.get("steps")) >= trained


def is_asked_to_stop(path: Path, process: RunProcess) -> bool:
    """Whether this process of the run was asked to stop."""
    asked = read_process(path, STOP_FILE)
    return bool(asked and (asked.pid, asked.started) == (process.pid, process.started))


def _changed_since(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime >= moment
    except OSError:
        return False


def _error_in(path: Path) -> str:
    """The sentence with which a command ended that had not yet taken the folder."""
    last = (log_lines(path, TRAIN_LOG) or [""])[-1]
    return last.removeprefix("error: ") if last.startswith("error: ") else ""


def _manifest(path: Path) -> dict:
    try:
        found = loads(read_own(path, "run.json", MAX_RUN_BYTES))
    except (OSError, JSONFault):
        return {}
    return found if isinstance(found, dict) else {}


def _records(path: Path) -> list[dict]:
    try:
        text = read_own(path, LOG, MAX_LOG_BYTES).decode(errors="replace")
    except OSError:
        return []
    return records_in(text.split("\n"))


def option_of(options: Sequence[str], name: str) -> str | None:
    """The value of an option in the words of a command line."""
    for place, word in enumerate(options):
        if word == name and place + 1 < len(options):
            return options[place + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def _number(value: object) -> int:
    return value if type(value) is int and 0 <= value < 2**53 else 0
