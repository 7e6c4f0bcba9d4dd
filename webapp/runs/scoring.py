"""Scores of a run: metrics.py as a process of its own, how far it is, and how it ended."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError
from core.run_process import read_process, remove_process
from webapp.model_registry import newest_place
from webapp.runs.folder import RunFolder
from webapp.runs.process import Commands, log_lines
from webapp.runs.runner import Runner
from webapp.runs.state import SCORE_LOG, SCORE_PROCESS, RunState

COMMAND = "metrics.py"
REPORT = "scores.html"
QUICK_PROMPTS = 8
QUICK = ("--max_prompts", str(QUICK_PROMPTS), "--images_per_prompt", "1", "--keep_prompts", "none")
# What metrics.py draws by each of two models: held-out captions, or else training captions, and
# prompts of what the base knew; by the trained one also training captions, in search of copies.
MAX_PROMPTS, MANY, SEVERAL, KEPT, RECALLED = 64, 32, 4, 45, 16
# A training row passes the UNet about three times, a picture its 20 steps with two rows each.
PASSES_OF_A_ROW, PASSES_OF_A_PICTURE = 3, 40
AROUND_SECONDS = 20  # opening models, reading pictures, writing the report
ENDING_SECONDS = 5  # that it has to end before it is killed
BAR = re.compile(r"(?P<what>[^:]{1,200}): +(?P<percent>\d{1,3})%\|.*?<(?P<left>[\d:?]+)")


@dataclass(frozen=True)
class ScoringState:
    """What metrics.py does, or how it has ended."""

    alive: bool = False
    what: str = ""  # it draws with
    percent: int | None = None
    problem: str = ""  # the sentence with which it ended; "" if it ended well
    cut_short: bool = False  # it ended without a word


def scoring_of(folder: RunFolder) -> ScoringState:
    """Read from the files whenever it is asked for, as the state of a run is."""
    process = read_process(folder.path, SCORE_PROCESS)
    if process is None:
        return ScoringState()
    last = (log_lines(folder.path, SCORE_LOG) or [""])[-1]
    if process.alive:
        bar = BAR.match(last)
        return ScoringState(True, bar["what"], int(bar["percent"])) if bar else ScoringState(True)
    if last.startswith("error: "):
        return ScoringState(problem=last.removeprefix("error: "))
    return ScoringState(cut_short=not _written_since(folder.path / REPORT, process.started))


class Scoring:
    """Starts metrics.py on runs, one at a time on the device, and calls it off."""

    def __init__(self, runner: Runner, commands: Commands):
        self._runner, self._commands = runner, commands

    def start(self, name: str, quick: bool = False) -> None:
        """Score what a run has made by now. Raises UserError where it has made nothing, and where
        the device is in use."""
        folder = self._runner.runs.run(name)
        place = newest_place(folder)
        if place is None:
            raise UserError(f"{name} has nothing to draw with yet. Wait for its first checkpoint.")
        words = [
            "--model", str(place.resolve()), "--write_run", "--progress",
            "--report", str(folder.path.resolve() / REPORT), *(QUICK if quick else ()),
        ]  # fmt: skip
        with self._runner.free_device():
            with suppress(OSError):
                (folder.path / SCORE_LOG).unlink(missing_ok=True)
            self._commands.start(COMMAND, words, folder.path, SCORE_LOG, SCORE_PROCESS)

    def call_off(self, name: str) -> None:
        """End metrics.py; what was scored before stays. Raises UserError where there is no such
        run."""
        folder = self._runner.runs.run(name)
        process = read_process(folder.path, SCORE_PROCESS)
        for number in (signal.SIGTERM, signal.SIGKILL):
            ends = time.monotonic() + ENDING_SECONDS
            if process and process.alive:
                with suppress(OSError):
                    os.kill(process.pid, number)
            while process and process.alive and time.monotonic() < ends:
                time.sleep(0.05)
        remove_process(folder.path, SCORE_PROCESS)


def seconds_of(state: RunState, held_out: int | None, quick: bool = False) -> float | None:
    """About how long scoring will take, at the pace of training; None where that is not known.

    `held_out`: how many pictures were kept out of training; None where that is not known.
    """
    paces = [r["pictures_per_second"] for r in state.last if _is_pace(r.get("pictures_per_second"))]
    if not paces:
        return None
    picture = PASSES_OF_A_PICTURE / PASSES_OF_A_ROW / max(paces)
    pictures = (2 * QUICK_PROMPTS + RECALLED) if quick else _pictures(state, held_out)
    return AROUND_SECONDS + pictures * picture


def _pictures(state: RunState, held_out: int | None) -> int:
    learned = (state.manifest.get("dataset") or {}).get("pictures")
    prompts = held_out or (learned if isinstance(learned, int) else MAX_PROMPTS)
    prompts = min(prompts, MAX_PROMPTS)
    following = prompts * (1 if prompts >= MANY else SEVERAL)
    return 2 * (following + KEPT) + (RECALLED if held_out else 0)


def _is_pace(value: object) -> bool:
    return isinstance(value, int | float) and 1e-6 < value < 1e6


def _written_since(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime >= moment - 1
    except OSError:
        return False
