"""The runner: starts, stops and queues training runs, one at a time on the device.

A run is the ordinary training script as a process of its own. What is queued stands in the runs'
own files, so that another app on the same folder, or the next one, goes on with it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from filelock import FileLock, Timeout

from core.errors import UserError
from core.run_process import FILE as PROCESS
from core.run_process import read_process, remove_process, this_process, write_process
from webapp.runs.folder import RunFolder, RunsFolder, Teaching
from webapp.runs.presets import merged
from webapp.runs.process import Commands, ask_to_stop
from webapp.runs.state import (
    FAILED,
    FINISHED,
    KILLED,
    PAUSED,
    QUEUED,
    SCORE_PROCESS,
    SCORING,
    STOP_FILE,
    TRAIN_LOG,
    RunState,
    state_of,
)

COMMAND = "train_text_to_image.py"
LOCK = ".queue.lock"
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_IDLE_LOOKS = 10.0  # another app on the folder may have queued runs, and be killed
MAX_QUEUED = 50
MAX_MORE_STEPS = 10**6
ENDS_HERE = "--stop_at_step"


class Runner:
    """Acts on the runs of a folder. Thread-safe, also beside another app on the same folder."""

    def __init__(self, runs: RunsFolder, commands: Commands):
        self.runs, self._commands = runs, commands
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._has_room_made = False
        # For a run that needs the memory that drawing takes: frees it, unless something is being
        # drawn, and returns whether it did; and lets others draw again.
        self.make_room: Callable[[], bool] = lambda: True
        self.give_room_back: Callable[[], object] = lambda: None

    def watch(self) -> None:
        """Start queued runs from now on, in a thread of its own."""
        threading.Thread(target=self._watch, name="runner", daemon=True).start()

    def enqueue(self, teaching: Teaching) -> RunFolder:
        """Make a run that is started when the device is free. Raises UserError."""
        with self._lock:
            if len(self.waiting()) >= MAX_QUEUED:
                raise UserError(f"{MAX_QUEUED} runs wait already. Take one out, or wait.")
            folder = self.runs.new_run(replace(teaching, queued=this_moment()))
        self._look_now()
        return folder

    def waiting(self) -> list[RunState]:
        """The queued runs, the next one first."""
        queued = [folder for folder in self.runs.runs() if _since(folder)]
        states = [state_of(folder) for folder in sorted(queued, key=_since)]
        return [state for state in states if state.status == QUEUED]

    def running(self) -> RunFolder | None:
        """The run that has the device, to train or to be scored; None where it is free."""
        return next((folder for folder in self.runs.runs() if has_device(folder)), None)

    def start_next(self) -> None:
        """Start the next queued run if the device is free."""
        if not self._is_any_queued():
            return  # the folder may not be there yet
        try:
            with self._lock, FileLock(self.runs.path / LOCK, timeout=0):
                waiting = self.waiting()
                if waiting and not self.running() and self._has_room_for(waiting[0]):
                    self._start(waiting[0])
        except (Timeout, OSError, UserError):  # another app is at it, or nothing can be written
            pass  # it waits

    @contextmanager
    def free_device(self) -> Iterator[None]:
        """Context in which the device is free, and no run is started. Raises UserError where it is
        in use."""
        with self._lock:
            try:
                with FileLock(self.runs.path / LOCK, timeout=SECONDS_BETWEEN_LOOKS):
                    if busy := self.running():
                        raise UserError(
                            f"{busy.name} is being trained or scored now, and one at a time has "
                            "the machine. Pause it, or wait until it is done."
                        )
                    yield
            except (Timeout, OSError) as error:
                raise UserError("Another run is just being started. Try again.") from error

    def pause(self, name: str) -> None:
        """Ask a run to save its state and end; take one out of the queue. Raises UserError."""
        with self._lock:
            state = state_of(self.runs.run(name))
            if state.status == QUEUED:
                return state.folder.change(queued="")
            if not state.is_live:
                raise UserError(f"{name} is not being trained.")
            ask_to_stop(state.folder.path, PROCESS, STOP_FILE)

    def resume(self, name: str) -> None:
        """Go on with a run that was paused, killed or failed. Raises UserError."""
        with self._lock:
            state = self._ours(name)
            if state.status not in (PAUSED, KILLED, FAILED, "draft"):
                raise UserError(f"{name} cannot be resumed: {state.status}.")
            self._queue(state, without_end(state))

    def stop_and_keep(self, name: str) -> None:
        """End a run where it is, with a finished model. Raises UserError."""
        with self._lock:
            state = self._ours(name)
            if not (state.is_live or state.status in (PAUSED, KILLED, FAILED)):
                raise UserError(f"{name} has no step to stop at.")
            # Written first: the run is then queued again as soon as its process has ended.
            self._queue(state, merged(without_end(state), [ENDS_HERE, "1"]))
            ask_to_stop(state.folder.path, PROCESS, STOP_FILE)

    def go_on(self, name: str, steps: int) -> None:
        """Train so many steps more than were planned. Raises UserError."""
        if not 1 <= steps <= MAX_MORE_STEPS:
            raise UserError(f"{steps} steps more cannot be trained. Give 1 to {MAX_MORE_STEPS:,}.")
        with self._lock:
            state = self._ours(name)
            if state.status not in (FINISHED, PAUSED, KILLED, FAILED):
                raise UserError(f"{name} is busy: {state.status}. Wait until it has ended.")
            total = max(state.step, state.steps or 0) + steps
            if state.status == FINISHED:
                total = state.step + steps
            longer = merged(without_end(state), ["--max_train_steps", str(total)])
            self._queue(state, longer)

    def move_up(self, name: str) -> None:
        """Let a queued run be the next one. Raises UserError."""
        with self._lock:
            state, waiting = state_of(self.runs.run(name)), self.waiting()
            if state.status != QUEUED:
                raise UserError(f"{name} does not wait.")
            first = waiting[0].teaching
            assert first is not None  # else it were not among those that wait
            state.folder.change(queued=_before(first.queued))

    def forget(self, name: str) -> None:
        """Delete a run. Raises UserError for one that is alive, or that the page did not make."""
        with self._lock:
            state = state_of(self.runs.run(name))
            if state.is_live or state.status == SCORING:
                raise UserError(f"{name} is being worked on. Pause it first.")
            self.runs.delete(name)

    def _ours(self, name: str) -> RunState:
        state = state_of(self.runs.run(name))
        if state.teaching is None:
            raise UserError(
                f"{name} was not made by this page, or by another version of it: continue it where "
                "it was started, with --resume_from_checkpoint latest."
            )
        return state

    def _queue(self, state: RunState, options: list[str]) -> None:
        state.folder.change(options=tuple(options), queued=this_moment())
        self._look_now()

    def _look_now(self) -> None:
        """Start what can be started, and have the thread that watches look more often."""
        self.start_next()
        self._wake.set()

    def _start(self, state: RunState) -> None:
        folder, teaching = state.folder, state.teaching
        assert teaching is not None
        options = list(teaching.options)
        if ENDS_HERE in options:  # at the newest state that was saved
            options = merged(options, [ENDS_HERE, str(max([1, *state.checkpoints]))])
        folder.write(teaching)  # what takes this no more would start it again and again
        remove_process(folder.path, STOP_FILE)
        try:
            words = [*options, "--output_dir", str(folder.path)]
            self._commands.start(COMMAND, words, folder.path, TRAIN_LOG, PROCESS)
        except UserError as error:
            write_process(folder.path, replace(this_process(), ended=str(error)), PROCESS)
        # Last: killed before, the app starts it again, and the run's own lock lets one through.
        folder.change(queued="")

    def _has_room_for(self, state: RunState) -> bool:
        if state.teaching is None or not state.teaching.alone:
            return True
        self._has_room_made = True
        return self.make_room()

    def _is_any_queued(self) -> bool:
        return any(_since(folder) for folder in self.runs.runs())

    def _watch(self) -> None:
        while True:
            self._wake.clear()
            self.start_next()
            self.tidy_up()
            busy = self._is_any_queued() or self._has_room_made
            self._wake.wait(SECONDS_BETWEEN_LOOKS if busy else SECONDS_BETWEEN_IDLE_LOOKS)

    def wait_for_room(self) -> None:
        """Return once no run needs the memory for itself, as one that outlived the app may."""
        while (folder := self.running()) and folder.teaching and folder.teaching.alone:
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def tidy_up(self) -> None:
        """Let others draw again once no run needs the memory for itself."""
        if self._has_room_made and not self.needs_room():
            self._has_room_made = False
            self.give_room_back()

    def needs_room(self) -> bool:
        """Whether a run that needs the memory for itself trains, or is the next one."""
        waiting = self.waiting()
        candidates = [*filter(None, [self.running()]), *(each.folder for each in waiting[:1])]
        return any(each.teaching.alone for each in candidates if each.teaching)


def without_end(state: RunState) -> list[str]:
    """The options of a run without where it was to be stopped."""
    options = state.teaching.options if state.teaching else ()
    if ENDS_HERE not in options:
        return list(options)
    place = options.index(ENDS_HERE)
    return [*options[:place], *options[place + 2 :]]


def has_device(folder: RunFolder) -> bool:
    """Whether a process trains a run, or scores it."""
    found = [read_process(folder.path, record) for record in (PROCESS, SCORE_PROCESS)]
    return any(process.alive for process in found if process)


def this_moment() -> str:
    """So precise that no two runs are queued at the same one."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _before(moment: str) -> str:
    """The moment before another one; the earliest before what is none."""
    try:
        before = datetime.fromisoformat(moment) - timedelta(microseconds=1)
        return before.isoformat(timespec="microseconds")
    except (ValueError, OverflowError):  # not written by this page
        return datetime.min.replace(tzinfo=UTC).isoformat(timespec="microseconds")


def _since(folder: RunFolder) -> str:
    """Since when it is queued; empty where it is not."""
    return teaching.queued if (teaching := folder.teaching) else ""
