"""process.json of a training run's folder: which process writes there, or why the last one ended.

The training script writes it. Others, such as the page, learn from it whether a run is alive and
whom to ask to stop, whoever started it.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import psutil

from core.bounded_json import JSONFault, loads
from core.errors import Stopped, UserError, sentence_of
from core.files import replaced as written
from core.paths import read_own
from core.printable import printable
from core.signals import Terminated

FILE = "process.json"
MAX_BYTES = 2**20
SAME_START_SECONDS = 1.0  # between two readings of when a process was started
MAX_COMMAND_CHARACTERS = 10_000
SECRETS = ("--hub_token",)  # options that are not written down


@dataclass(frozen=True)
class RunProcess:
    """The process of a run: alive, killed, or ended with a sentence."""

    pid: int
    started: float  # seconds since the epoch: another process of the same number has another
    command: tuple[str, ...] = ()
    steps: int = 0  # of the whole run, once they are known
    ended: str = ""  # why it ended without a finished model, if it could say so
    stopped: bool = False  # it ended on request, with its state saved

    @property
    def alive(self) -> bool:
        """Whether it still runs. One that has ended and was not yet waited for does not."""
        if self.ended:
            return False
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < SAME_START_SECONDS
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def this_process() -> RunProcess:
    """This one, with its command line as far as it is no secret."""
    words = [word[:MAX_COMMAND_CHARACTERS] for word in sys.argv]
    shown = [word for before, word in pairwise(["", *words]) if not _is_secret(before, word)]
    return RunProcess(os.getpid(), psutil.Process().create_time(), tuple(shown))


def _is_secret(before: str, word: str) -> bool:
    return before in SECRETS or word.partition("=")[0] in SECRETS


def process_of(pid: int) -> RunProcess | None:
    """A running process by its number; None where it has ended."""
    try:
        return RunProcess(pid, psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def read_process(folder: Path, name: str = FILE) -> RunProcess | None:
    """The last process of a run; None where none is known."""
    try:
        found = loads(read_own(folder, name, MAX_BYTES))
    except (OSError, JSONFault):
        return None
    if not isinstance(found, dict):
        return None
    pid, started, command = (found.get(key) for key in ("pid", "started", "command"))
    if type(pid) is not int or not 0 < pid < 2**31 or not isinstance(started, int | float):
        return None
    words = command if isinstance(command, list) else []
    return RunProcess(
        pid,
        float(started),
        tuple(word for word in words if isinstance(word, str)),
        steps if type(steps := found.get("steps")) is int and 0 <= steps < 2**53 else 0,
        printable(str(found.get("ended") or "")),
        found.get("stopped") is True,
    )


def write_process(folder: Path, process: RunProcess, name: str = FILE) -> None:
    """Write the record; a disk that does not take it ends nothing."""
    with suppress(OSError, UserError), written(folder / name, durable=False) as staged:
        staged.write_text(json.dumps(asdict(process)) + "\n", encoding="utf-8")


def note_steps(folder: Path, steps: int) -> None:
    """Add to this process's record how many steps the whole run has."""
    write_process(folder, replace(this_process(), steps=steps))


def note_end(folder: Path, error: BaseException | None) -> None:
    """Note how this process ended: with a finished model (None), on request, or with an error."""
    if error is None:
        return remove_process(folder)
    kept = read_process(folder) or this_process()
    stopped = isinstance(error, Stopped | Terminated | KeyboardInterrupt)
    words = sentence_of(error) if isinstance(error, Exception) else None
    words = words or str(error) or type(error).__name__
    write_process(folder, replace(kept, ended=" ".join(words.split()), stopped=stopped))


def remove_process(folder: Path, name: str = FILE) -> None:
    with suppress(OSError):
        (folder / name).unlink(missing_ok=True)
