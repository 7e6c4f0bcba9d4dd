"""Plans: what runs would take on this machine, measured by the training script itself."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.bounded_json import JSONFault, read
from core.errors import UserError
from core.files import temporary_folder
from webapp.runs.process import Commands

COMMAND = "train_text_to_image.py"
TIMED_STEPS = 3
MAX_SECONDS = 900  # of a measurement: a full-size model on a CPU takes minutes
MAX_PLANS = 50  # kept
MAX_BYTES = 2**20


@dataclass
class PlanState:
    """A plan that is being made, or the reason why there is none."""

    done: threading.Event = field(default_factory=threading.Event)
    plan: dict | None = None
    problem: str = ""


class Plans:
    """Plans by the options of their runs; one is measured at a time. Thread-safe."""

    def __init__(self, commands: Commands):
        self._commands = commands
        self._plans: OrderedDict[tuple[str, ...], PlanState] = OrderedDict()
        self._lock, self._measuring = threading.Lock(), threading.Lock()
        self._asked: PlanState | None = None  # which was asked for last

    def of(self, options: Sequence[str], stamp: str = "") -> PlanState:
        """The plan of a run; it is begun where there is none yet. `stamp` tells one state of the
        pictures from another."""
        key = (*options, stamp)
        with self._lock:
            known = self._plans.get(key)
            state = self._asked = known or PlanState()
            if known is None:
                self._plans[key] = state
                while len(self._plans) > MAX_PLANS:
                    self._plans.popitem(last=False)
                threading.Thread(
                    target=self._make, args=(state, [*options]), name="plan", daemon=True
                ).start()
        return state

    def forget(self, options: Sequence[str], stamp: str = "") -> None:
        """Measure it anew the next time that it is asked for."""
        with self._lock:
            self._plans.pop((*options, stamp), None)

    def _make(self, state: PlanState, options: list[str]) -> None:
        try:
            with self._measuring, temporary_folder("plan-") as folder:
                if state is not self._asked:  # other settings are wanted by now: left without one
                    return
                state.plan = self._measured(options, folder)
        except UserError as error:
            state.problem = str(error)
        finally:
            state.done.set()

    def _measured(self, options: list[str], folder: str) -> dict:
        file = Path(folder) / "plan.json"
        words = [*options, "--output_dir", str(Path(folder) / "model"), "--dry_run"]
        words += ["--timed_steps", str(TIMED_STEPS), "--plan_file", str(file)]
        code, printed = self._commands.answer(COMMAND, words, MAX_SECONDS)
        if code:
            raise UserError(last_sentence(printed))
        try:
            found = read(file, MAX_BYTES)
        except (OSError, JSONFault) as error:
            raise UserError(f"The plan could not be read ({error}).") from error
        if not isinstance(found, dict) or not isinstance(found.get("seconds"), dict):
            raise UserError("The plan says nothing of time. Is the project of one version?")
        return found


def last_sentence(printed: str) -> str:
    """The sentence with which a command ended."""
    lines = [line.strip() for line in printed.replace("\r", "\n").split("\n") if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else "It ended without a word."
