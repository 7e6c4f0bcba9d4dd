"""The runner: one run at a time, in the order of the queue, whatever is killed in between."""

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import UserError
from core.files import NotWritable
from core.run_process import read_process
from webapp.runs.folder import RunFolder, RunsFolder, Teaching, now
from webapp.runs.process import Commands
from webapp.runs.runner import SECONDS_BETWEEN_LOOKS, Runner, this_moment
from webapp.runs.state import (
    FAILED,
    FINISHED,
    KILLED,
    PAUSED,
    QUEUED,
    STARTING,
    STOPPING,
    TRAINING,
    state_of,
)

# Stands for the training script: writes what it writes, and waits for a word in the file "go".
SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from core.errors import Stopped, exit_with_sentence
from core.run_process import note_end, this_process, write_process

words = sys.argv[2:]
value = lambda name: words[words.index(name) + 1] if name in words else None
out, steps = Path(value("--output_dir")), int(value("--max_train_steps"))
last = int(value("--stop_at_step") or steps)

def main():
    error = None
    signal.signal(signal.SIGTERM, lambda *_: setattr(sys, "asked", True))
    write_process(out, this_process())
    try:
        done = max([int(p.name.split("-")[1]) for p in out.glob("checkpoint-*")], default=0)
        while done < last:
            while not (out / "go").exists():
                if getattr(sys, "asked", False):
                    (out / f"checkpoint-{{done}}").mkdir(exist_ok=True)
                    raise Stopped(f"Stopped after step {{done}}.")
                time.sleep(0.01)
            if (out / "go").read_text() == "fail":
                raise ValueError("The moon is full.")
            (out / "go").unlink()
            done += 1
            with open(out / "log.jsonl", "a") as log:
                log.write(json.dumps({{"run_id": "a", "step": done, "loss": 1.0}}) + chr(10))
        (out / f"checkpoint-{{done}}").mkdir(exist_ok=True)
        (out / "run.json").write_text(json.dumps({{"steps": done, "options": words}}))
    except BaseException as caught:
        error = caught
        raise
    finally:
        note_end(out, error)

exit_with_sentence(main)
"""


@pytest.fixture
def runner(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(Path(__file__).parent.parent)))
    made = Runner(RunsFolder(tmp_path / "runs"), Commands((sys.executable, str(script))))
    yield made
    for folder in made.runs.runs():
        process = read_process(folder.path)
        if process and process.alive:
            os.kill(process.pid, signal.SIGKILL)


def teaching(name: str, steps: int = 2) -> Teaching:
    return Teaching(name, now(), "style", "quick", "set", ("--max_train_steps", str(steps)))


def status(runner: Runner, name: str) -> str:
    return state_of(runner.runs.run(name)).status


def awaited(runner: Runner, name: str, *wanted: str) -> None:
    """Wait until a run has one of these states; the queue goes on meanwhile."""
    patience = time.monotonic() + 60
    while status(runner, name) not in wanted:
        assert time.monotonic() < patience, status(runner, name)
        runner.start_next()
        time.sleep(0.01)


def step(runner: Runner, name: str, word: str = "") -> None:
    """Let a run take its next step."""
    go = runner.runs.path / name / "go"
    go.write_text(word)
    patience = time.monotonic() + 60
    while go.exists() and status(runner, name) not in (FAILED, FINISHED):
        assert time.monotonic() < patience
        runner.start_next()
        time.sleep(0.01)


def test_a_run_goes_from_the_queue_to_a_finished_model(runner):
    runner.enqueue(teaching("a"))
    awaited(runner, "a", STARTING)
    step(runner, "a")
    awaited(runner, "a", TRAINING)
    step(runner, "a")
    awaited(runner, "a", FINISHED)
    assert state_of(runner.runs.run("a")).step == 2


def test_one_run_has_the_device_and_the_others_wait_in_order(runner):
    for name in ("a", "b", "c"):
        runner.enqueue(teaching(name, steps=1))
    awaited(runner, "a", STARTING)
    assert [each.name for each in runner.waiting()] == ["b", "c"]
    runner.move_up("c")
    assert [each.name for each in runner.waiting()] == ["c", "b"]
    for name in ("a", "c", "b"):
        step(runner, name)
        awaited(runner, name, FINISHED)


def test_a_paused_run_goes_on_where_it_was(runner):
    runner.enqueue(teaching("a", steps=3))
    awaited(runner, "a", STARTING)
    step(runner, "a")
    runner.pause("a")
    awaited(runner, "a", PAUSED)
    assert state_of(runner.runs.run("a")).sentence == "Stopped after step 1."
    runner.resume("a")
    awaited(runner, "a", STARTING, TRAINING)
    for _ in range(2):
        step(runner, "a")
    awaited(runner, "a", FINISHED)


def test_stop_and_keep_ends_with_the_model_of_the_last_step(runner):
    runner.enqueue(teaching("a", steps=100))
    awaited(runner, "a", STARTING)
    step(runner, "a")
    awaited(runner, "a", TRAINING)
    runner.stop_and_keep("a")
    awaited(runner, "a", FINISHED)
    assert state_of(runner.runs.run("a")).manifest["steps"] == 1


def test_a_finished_run_goes_on_for_more_steps(runner):
    runner.enqueue(teaching("a", steps=1))
    awaited(runner, "a", STARTING)
    step(runner, "a")
    awaited(runner, "a", FINISHED)
    runner.go_on("a", 2)
    awaited(runner, "a", STARTING, TRAINING)
    for _ in range(2):
        step(runner, "a")
    awaited(runner, "a", FINISHED)
    assert state_of(runner.runs.run("a")).manifest["steps"] == 3


def test_a_killed_run_is_shown_as_killed_and_can_be_resumed(runner):
    runner.enqueue(teaching("a"))
    awaited(runner, "a", STARTING)
    os.kill(read_process(runner.runs.path / "a").pid, signal.SIGKILL)
    awaited(runner, "a", KILLED)
    assert state_of(runner.runs.run("a")).can_resume
    runner.resume("a")
    awaited(runner, "a", STARTING)


def test_a_run_that_fails_says_why_and_the_next_one_begins(runner):
    for name in ("a", "b"):
        runner.enqueue(teaching(name))
    awaited(runner, "a", STARTING)
    step(runner, "a", "fail")
    awaited(runner, "a", FAILED)
    assert state_of(runner.runs.run("a")).sentence == "The moon is full."
    awaited(runner, "b", STARTING)


def test_another_app_on_the_folder_finds_every_run_again(runner):
    """As after kill -9 of the app: what is queued is started, what lives is followed."""
    for name in ("a", "b"):
        runner.enqueue(teaching(name, steps=1))
    awaited(runner, "a", STARTING)
    other = Runner(RunsFolder(runner.runs.path), runner._commands)
    assert status(other, "a") == STARTING and status(other, "b") == QUEUED
    other.start_next()
    assert status(other, "b") == QUEUED, "one run at a time"
    step(other, "a")
    awaited(other, "b", STARTING)


def test_a_run_that_another_app_queued_is_found(runner, monkeypatch):
    """That app may have been killed since, and this one have nothing to do."""
    monkeypatch.setattr("webapp.runs.runner.SECONDS_BETWEEN_IDLE_LOOKS", 0.01)
    seen = threading.Event()
    monkeypatch.setattr(runner, "_start", lambda state: seen.set())
    runner.watch()
    runner.runs.new_run(replace(teaching("a"), queued=this_moment()))
    assert seen.wait(60)
    runner.runs.run("a").change(queued="")


@pytest.mark.parametrize("queued", ["!", "0001-01-01T00:00:00.000000+00:00"])
def test_a_run_goes_before_one_that_was_queued_at_no_known_moment(runner, monkeypatch, queued):
    monkeypatch.setattr(runner, "_start", lambda state: None)
    for name in ("a", "b"):
        runner.enqueue(teaching(name))
    runner.runs.run("a").change(queued=queued)
    runner.move_up("b")
    assert status(runner, "b") == QUEUED


def test_an_app_killed_right_after_a_start_starts_nothing_twice(runner):
    runner.enqueue(teaching("a", steps=1))
    awaited(runner, "a", STARTING)
    # It died before it had noted that the run was taken from the queue.
    folder = runner.runs.run("a")
    folder.change(queued="2026-01-01T00:00:00.000000+00:00")
    pid = read_process(folder.path).pid
    runner.start_next()
    assert read_process(folder.path).pid == pid and status(runner, "a") == STARTING
    assert not runner.waiting()


def test_what_is_alive_is_not_deleted(runner):
    runner.enqueue(teaching("a"))
    awaited(runner, "a", STARTING)
    with pytest.raises(UserError, match="Pause it first"):
        runner.forget("a")
    runner.pause("a")
    awaited(runner, "a", PAUSED)
    runner.forget("a")
    assert not runner.runs.runs()


def test_a_folder_that_the_page_did_not_make_is_never_deleted(runner):
    folder = runner.runs.path / "mine"
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("")
    with pytest.raises(UserError, match="deletes only its own runs"):
        runner.forget("mine")
    for action in (runner.resume, runner.stop_and_keep, lambda name: runner.go_on(name, 1)):
        with pytest.raises(UserError, match="not made by this page"):
            action("mine")
    assert folder.exists()


@pytest.mark.parametrize("name", ["..", "../x", "/tmp", "", ".hidden", "a/b", "pictures", "a\0b"])
def test_no_name_leads_out_of_the_folder(runner, name):
    for action in (runner.pause, runner.resume, runner.forget, runner.move_up):
        with pytest.raises(UserError, match="There is no run"):
            action(name)
    with pytest.raises(UserError, match="cannot be a name"):
        runner.enqueue(teaching(name))


def test_a_command_that_cannot_start_is_a_run_that_can_be_resumed(tmp_path):
    runner = Runner(RunsFolder(tmp_path / "runs"), Commands((str(tmp_path / "nothing"),)))
    runner.enqueue(teaching("a"))
    state = state_of(runner.runs.run("a"))
    assert state.status == FAILED and state.can_resume and "cannot be started" in state.sentence


def test_runs_that_wait_are_looked_at_now_and_then_and_not_all_the_time(runner):
    for name in ("a", "b"):
        runner.enqueue(teaching(name))
    awaited(runner, "a", STARTING)
    looks, plain = [], runner.start_next
    runner.start_next = lambda: (looks.append(time.monotonic()), plain())
    runner.watch()
    patience = time.monotonic() + 60
    while len(looks) < 4 and time.monotonic() < patience:
        time.sleep(0.01)
    # A busy machine makes it longer. The first may follow at once: the queue has just changed.
    assert looks[3] - looks[1] > SECONDS_BETWEEN_LOOKS


def test_a_run_that_is_asked_to_stop_is_shown_as_stopping(runner):
    runner.enqueue(teaching("a"))
    awaited(runner, "a", STARTING)
    os.kill(read_process(runner.runs.path / "a").pid, signal.SIGSTOP)
    runner.pause("a")
    assert status(runner, "a") == STOPPING
    os.kill(read_process(runner.runs.path / "a").pid, signal.SIGCONT)
    awaited(runner, "a", PAUSED)


def test_where_nothing_can_be_written_a_run_waits_and_is_not_started_again_and_again(
    runner, monkeypatch
):
    """Without a note that it has been started, it would be started anew each second."""

    def full(*_) -> None:
        raise NotWritable("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(Runner, "_start", lambda *_: full())
        runner.enqueue(teaching("a"))
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "write", full)
        runner.start_next()
        assert status(runner, "a") == QUEUED and not read_process(runner.runs.path / "a")
    awaited(runner, "a", STARTING)


def test_a_run_is_made_whole_or_not_at_all(runner, monkeypatch):
    """Else its name would be taken by a folder that is not shown."""

    def full(*_) -> None:
        raise NotWritable("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "write", full)
        with pytest.raises(UserError, match="The disk is full"):
            runner.enqueue(teaching("a"))
    assert [each.name for each in runner.runs.path.iterdir() if not each.is_file()] == []
    runner.enqueue(teaching("a"))
    with pytest.raises(UserError, match="There is a run 'a' already"):
        runner.enqueue(teaching("a"))


class Room:
    """Stands for what draws: `busy` while something is being drawn."""

    def __init__(self, runner: Runner):
        self.busy, self.is_ours = True, True
        runner.make_room, runner.give_room_back = self.make, self.give_back

    def make(self) -> bool:
        self.is_ours = self.is_ours and self.busy
        return not self.busy

    def give_back(self) -> None:
        self.is_ours = True


def test_a_run_that_needs_the_memory_waits_for_what_is_drawn_and_gives_it_back(runner):
    room = Room(runner)
    runner.enqueue(replace(teaching("a", steps=1), alone=True))
    assert status(runner, "a") == QUEUED and runner.needs_room(), "nothing is killed for it"
    room.busy = False
    awaited(runner, "a", STARTING)
    runner.tidy_up()
    assert not room.is_ours
    step(runner, "a")
    awaited(runner, "a", FINISHED)
    runner.tidy_up()
    assert room.is_ours and not runner.needs_room()


def test_a_run_beside_which_others_draw_waits_for_nobody(runner):
    room = Room(runner)
    runner.enqueue(teaching("a"))
    awaited(runner, "a", STARTING)
    assert room.is_ours


def test_an_app_that_starts_waits_for_a_run_that_needs_the_memory(runner):
    """As it outlived the app before: else both would be out of memory."""
    runner.enqueue(replace(teaching("a", steps=1), alone=True))
    awaited(runner, "a", STARTING)
    waiting = threading.Thread(target=runner.wait_for_room)
    waiting.start()
    assert waiting.is_alive()
    step(runner, "a")
    awaited(runner, "a", FINISHED)
    waiting.join(60)
    assert not waiting.is_alive()
