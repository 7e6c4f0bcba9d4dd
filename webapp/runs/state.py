"""The state of a run, read from its files and its process whenever it is asked for.

Nothing is remembered: so it is true after the app, the run, or both were killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path

import psutil

from core.bounded_json import JSONFault, loads
from core.paths import read_own
from core.run_folder import FILE as LOG
from core.run_folder import checkpoints_in
from core.run_process import FILE as PROCESS
from core.run_process import RunProcess, read_process
from webapp.runs.folder import RunFolder, Teaching
from webapp.runs.log import RunLogs, last_records
from webapp.runs.process import log_lines

TRAIN_LOG, SCORE_LOG, SCORE_PROCESS = "train.log", "scoring.log", "scoring.json"
MODEL, BEST = "run.json", "best/run.json"  # of a finished model, and of the best on the way
STOP_FILE = "stop.json"  # names the process that was asked to stop
MAX_RUN_BYTES = 4 * 2**20
MAX_SECONDS_LEFT = 1e9

QUEUED, STARTING, TRAINING, STOPPING = "queued", "starting", "training", "stopping"
PAUSED, KILLED, FAILED, FINISHED = "paused", "killed", "failed", "finished"
SCORING, DRAFT = "scoring", "draft"
LIVE = (STARTING, TRAINING, STOPPING)  # a process trains it
DONE = (FINISHED, SCORING)


LOGS = RunLogs()


@dataclass(frozen=True)
class RunState:
    """What a run does or has done."""

    folder: RunFolder
    status: str
    teaching: Teaching | None
    process: RunProcess | None  # that trains it, or trained it last
    manifest: dict = field(default_factory=dict)  # run.json of the finished model; {} without
    last: tuple[dict, ...] = ()  # records of log.jsonl, the newest last
    checkpoints: tuple[int, ...] = ()  # their steps

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def records(self) -> tuple[dict, ...]:
        """Of log.jsonl, by step: as many as can be shown."""
        return LOGS.records(self.folder.path)

    @property
    def step(self) -> int:
        """Steps that are known to be done. A run that was resumed further back counts from there,
        whatever its log holds of before."""
        if self.status in DONE:
            return self.steps_of_model
        if self.status == QUEUED or not self.last:
            return self.saved_step
        logged = self.last[-1]["step"]
        if self.is_live and self.process:
            return logged if _logs(self.folder.path, self.process) else self.saved_step
        return max(logged, self.saved_step)

    @property
    def saved_step(self) -> int:
        """The step that a resumed run goes on from, or of the finished model."""
        return max([*self.checkpoints[-1:], self.steps_of_model])

    @property
    def steps_of_model(self) -> int:
        return _number(self.manifest.get("steps"))

    @property
    def steps(self) -> int | None:
        """Steps of the whole run, if that is known."""
        if self.status in DONE:
            return self.steps_of_model or None
        if self.process and self.process.steps and self.status != QUEUED:
            return self.process.steps
        wanted = option_of(self.options, "--max_train_steps")
        if wanted and wanted.isdecimal() and len(wanted) < 16:
            return int(wanted)
        return self.steps_of_model or None

    @property
    def options(self) -> tuple[str, ...]:
        """Words of the command line, as far as they are known."""
        return (self.teaching and self.teaching.options) or self.command[1:]

    @property
    def command(self) -> tuple[str, ...]:
        """The command line of the process that trains it, or trained it last."""
        return self.process.command if self.process else ()

    @property
    def seconds_left(self) -> float | None:
        """As its log says; None where it does not, or nothing trains."""
        known = (each["seconds_left"] for each in reversed(self.last) if "seconds_left" in each)
        left = next(known, None)
        if self.status != TRAINING or not isinstance(left, int | float):
            return None
        return float(left) if 0 <= left < MAX_SECONDS_LEFT else None  # not for NaN

    @property
    def memory(self) -> int | None:
        """Bytes that its process has in memory, with those that it started; None without one."""
        if not (self.process and self.is_live):
            return None
        try:
            process = psutil.Process(self.process.pid)
            several = [process, *process.children(recursive=True)]
            return sum(each.memory_info().rss for each in several)
        except psutil.Error:  # it has just ended
            return None

    @property
    def is_suspended(self) -> bool:
        """Whether its process is held, as by Ctrl-Z."""
        if not (self.process and self.is_live):
            return False
        try:
            return psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False

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
        if self.status in DONE:
            return self.folder.path
        found = checkpoints_in(self.folder.path)
        if not found or (self.is_model and max(found) <= self.steps_of_model):
            return self.folder.path if self.is_model else None
        return found[max(found)]

    @property
    def sentence(self) -> str:
        """Why it ended, in its own words."""
        if self.process and self.process.ended:
            return self.process.ended
        return _error_in(self.folder.path, self.process) if self.status == FAILED else ""


def state_of(folder: RunFolder) -> RunState:
    """The state of a run by now."""
    path = folder.path
    process, teaching = read_process(path, PROCESS), folder.teaching
    manifest, last = manifest_of(path), last_records(path)
    checkpoints = tuple(checkpoints_in(path))
    status = _status(path, process, teaching, manifest, last, checkpoints)
    return RunState(folder, status, teaching, process, manifest, last, checkpoints)


def _status(
    path: Path, process: RunProcess | None, teaching: Teaching | None, manifest: dict,
    last: tuple[dict, ...], checkpoints: tuple[int, ...],
) -> str:  # fmt: skip
    if process and process.alive:
        if is_asked_to_stop(path, process):
            return STOPPING
        trains = process.steps > 0 or (last and _logs(path, process))
        return TRAINING if trains else STARTING
    if teaching and teaching.queued:
        return QUEUED
    is_end = bool(manifest) and _is_end(path, process, manifest, last, checkpoints)
    if process and process.ended and not (process.stopped and is_end):
        return PAUSED if process.stopped else FAILED
    if is_end:
        scoring = read_process(path, SCORE_PROCESS)
        return SCORING if scoring and scoring.alive else FINISHED
    if process and is_asked_to_stop(path, process):
        return PAUSED  # before it could note that
    if process:
        return FAILED if _error_in(path, process) else KILLED
    return PAUSED if checkpoints else DRAFT if teaching and not last else KILLED


def _is_end(
    path: Path, process: RunProcess | None, manifest: dict, last: tuple[dict, ...],
    checkpoints: tuple[int, ...],
) -> bool:  # fmt: skip
    """Whether the model in the folder is the end of what was trained there."""
    steps = _number(manifest.get("steps"))
    if any(step > steps for step in checkpoints[-1:]):
        return False
    if process:  # it was killed: after it had saved the model, or on the way to another one
        return _saved_at(path, manifest) >= process.started
    # A run that was kept at an earlier step has a longer log, which is older than its model.
    is_longer = any(each["step"] > steps for each in last)
    return not is_longer or not _changed_since(path / LOG, _saved_at(path, manifest))


def _saved_at(path: Path, manifest: dict) -> float:
    """When the model was saved, at the latest. metrics.py writes its scores into run.json later."""
    try:
        return datetime.fromisoformat(str(manifest.get("created"))).timestamp() + 1  # whole seconds
    except (ValueError, OverflowError, OSError):
        return _changed_at(path / MODEL)


def is_asked_to_stop(path: Path, process: RunProcess) -> bool:
    """Whether this process of the run was asked to stop."""
    asked = read_process(path, STOP_FILE)
    return bool(asked and (asked.pid, asked.started) == (process.pid, process.started))


def _logs(path: Path, process: RunProcess) -> bool:
    """Whether a process has written into the log of its run."""
    return _changed_since(path / LOG, process.started)


def _changed_since(path: Path, moment: float) -> bool:
    return _changed_at(path) >= moment


def _changed_at(path: Path) -> float:
    """When a file was written last; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _error_in(path: Path, process: RunProcess | None) -> str:
    """The sentence with which a command ended that had not yet taken the folder."""
    if process and not _changed_since(path / TRAIN_LOG, process.started):
        return ""
    last = (log_lines(path, TRAIN_LOG) or [""])[-1]
    return last.removeprefix("error: ") if last.startswith("error: ") else ""


def manifest_of(path: Path, name: str = MODEL) -> dict:
    """The run.json of a model folder; empty where it cannot be read."""
    try:
        found = loads(read_own(path, name, MAX_RUN_BYTES))
    except (OSError, JSONFault):
        return {}
    return found if isinstance(found, dict) else {}


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
