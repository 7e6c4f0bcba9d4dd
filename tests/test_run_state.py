"""The state of a run is true whatever was killed, and whoever wrote its files."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from run_folders import OPTIONS, age, finish, log, make_run, process, teaching

from core.run_process import note_end, process_of, write_process
from webapp.runs import log as run_log
from webapp.runs.folder import RunsFolder
from webapp.runs.log import RunLogs
from webapp.runs.state import (
    DRAFT,
    FAILED,
    FINISHED,
    KILLED,
    PAUSED,
    QUEUED,
    SCORING,
    STARTING,
    STOPPING,
    TRAINING,
    state_of,
)


@pytest.fixture
def sleeper():
    """A process that waits until it is killed, as a trainer would not."""
    started = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield started
    started.kill()
    started.wait()


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def alive(folder, sleeper, **values) -> None:
    known = process_of(sleeper.pid)
    process(folder, pid=known.pid, started=known.started, **values)


def test_a_run_whose_process_lives_trains_as_soon_as_it_knows_its_steps(runs, sleeper):
    folder = make_run(runs, "a", 5)
    age(folder.path / "log.jsonl", 3600)
    alive(folder, sleeper, steps=0)
    assert state_of(folder).status == STARTING
    alive(folder, sleeper, steps=200)
    state = state_of(folder)
    assert (state.status, state.steps, state.memory > 0) == (TRAINING, 200, True)


def test_a_run_that_was_killed_is_shown_as_killed_also_before_anybody_waited_for_it(runs, sleeper):
    folder = make_run(runs, "a", 5)
    alive(folder, sleeper)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert psutil.Process(sleeper.pid).status() == psutil.STATUS_ZOMBIE
    assert state_of(folder).status == KILLED
    sleeper.wait()
    state = state_of(folder)
    assert (state.status, state.can_resume, state.memory) == (KILLED, True, None)


def test_a_process_that_has_got_its_number_is_not_taken_for_it(runs, sleeper):
    folder = make_run(runs, "a", 5)
    process(folder, pid=sleeper.pid, started=process_of(sleeper.pid).started - 100)
    assert state_of(folder).status == KILLED


def test_a_run_that_is_suspended_lives_and_is_said_to_be_held(runs, sleeper):
    folder = make_run(runs, "a", 5)
    alive(folder, sleeper)
    assert not state_of(folder).is_suspended
    sleeper.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOWAIT)
    state = state_of(folder)
    assert state.is_live and state.is_suspended


def test_a_run_that_was_asked_to_stop_stops_and_the_next_process_was_not_asked(runs, sleeper):
    folder = make_run(runs, "a", 5)
    alive(folder, sleeper)
    asked = process_of(sleeper.pid)
    write_process(folder.path, asked, "stop.json")
    assert state_of(folder).status == STOPPING
    process(folder, "stop.json", pid=sleeper.pid, started=asked.started - 100)
    assert state_of(folder).status == TRAINING


def test_a_run_that_ended_with_a_sentence_says_it(runs):
    folder = make_run(runs, "a", 5)
    process(folder, ended="Stopped after step 5.", stopped=True)
    assert (state_of(folder).status, state_of(folder).sentence) == (PAUSED, "Stopped after step 5.")
    process(folder, ended="The disk is full.")
    assert (state_of(folder).status, state_of(folder).sentence) == (FAILED, "The disk is full.")


def test_a_command_that_ended_before_it_took_the_folder_says_why_in_its_log(runs):
    folder = make_run(runs, "a")
    (folder.path / "train.log").write_text("reading\nerror: There are no pictures.\n")
    process(folder, steps=0)
    assert state_of(folder).sentence == "There are no pictures."
    # A later process that was killed before it printed anything did not say that.
    process(folder, steps=0, started=time.time() + 60)
    assert (state_of(folder).status, state_of(folder).sentence) == (KILLED, "")


@pytest.mark.parametrize(
    ("values", "steps", "status"),
    [({"queued": "2026-01-01T00:00:00+00:00"}, 5, QUEUED), ({}, 0, DRAFT), ({}, 5, PAUSED)],
)
def test_a_run_without_a_process_waits_or_is_where_it_was_left(runs, values, steps, status):
    assert state_of(make_run(runs, "a", steps, **values)).status == status


def test_a_run_that_the_page_did_not_make_is_shown_too(runs):
    folder = make_run(runs, "a", 5, taught=False)
    assert (state_of(folder).status, state_of(folder).can_resume) == (PAUSED, False)
    log(folder, {"step": 6, "loss": 0.1})
    process(folder, command=["train.py", "--max_train_steps", "60"], steps=0)
    state = state_of(folder)
    assert (state.status, state.step, state.steps) == (KILLED, 6, 60)


def test_a_finished_run_is_finished_at_its_last_step_and_scored_while_that_lasts(runs, sleeper):
    folder = make_run(runs, "a", 5)
    finish(folder, 5)
    state = state_of(folder)
    assert (state.status, state.step, state.steps) == (FINISHED, 5, 5)
    assert state.newest == folder.path
    write_process(folder.path, process_of(sleeper.pid), "scoring.json")
    assert state_of(folder).status == SCORING


def test_a_model_kept_at_an_earlier_step_than_the_log_goes_to_is_finished(runs):
    folder = make_run(runs, "a", 5)
    log(folder, {"step": 9, "loss": 0.1})
    age(folder.path / "log.jsonl", 60)
    finish(folder, 5)
    state = state_of(folder)
    assert (state.status, state.step, state.steps) == (FINISHED, 5, 5)


def test_a_finished_run_that_went_on_and_was_killed_is_killed_though_it_was_scored_since(runs):
    folder = make_run(runs, "a", 5)
    finish(folder, 5, created="2026-01-01T00:00:00+00:00")
    log(folder, {"step": 9, "loss": 0.1})
    process(folder, started=time.time() - 60)
    state = state_of(folder)
    assert (state.status, state.step, state.saved_step, state.steps) == (KILLED, 9, 5, 200)
    assert state.newest == folder.path


def test_a_run_killed_just_after_it_saved_its_model_is_finished(runs):
    folder = make_run(runs, "a", 5)
    finish(folder, 5)
    process(folder, started=time.time() - 60)
    assert state_of(folder).status == FINISHED


def test_a_run_killed_with_a_checkpoint_beyond_its_model_draws_with_the_checkpoint(runs):
    folder = make_run(runs, "a", 5)
    finish(folder, 5)
    (folder.path / "checkpoint-8").mkdir()
    process(folder, started=1.0)
    state = state_of(folder)
    assert (state.status, state.saved_step, state.newest.name) == (KILLED, 8, "checkpoint-8")


def test_of_two_processes_the_second_is_turned_away_and_the_first_stays_the_runs(runs, sleeper):
    """Only the process that holds the folder's lock writes into it: the other one's end, which the
    page noted as its own start before, is told by the log."""
    folder = make_run(runs, "a", 5)
    alive(folder, sleeper)
    (folder.path / "train.log").write_text("error: Another run is writing to a; wait for it.\n")
    assert state_of(folder).status == TRAINING


def test_a_run_that_went_back_counts_from_there(runs, sleeper):
    folder = make_run(runs, "a", 5)
    log(folder, *({"step": step, "loss": 0.5} for step in range(6, 10)))
    age(folder.path / "log.jsonl", 3600)
    alive(folder, sleeper)
    assert state_of(folder).step == 5  # resumed there, and nothing logged since
    log(folder, {"step": 6, "loss": 0.25, "seconds_left": 3.5})
    state = state_of(folder)
    assert (state.step, state.seconds_left) == (6, 3.5)
    assert [each["step"] for each in state.records] == [1, 2, 3, 4, 5, 6]
    assert state.records[-1]["loss"] == 0.25


@pytest.mark.parametrize("left", ["soon", float("nan"), float("inf"), -1, 1e300, None, True, [1]])
def test_a_time_left_that_is_none_is_left_out(runs, sleeper, left):
    folder = make_run(runs, "a")
    alive(folder, sleeper)
    log(folder, {"step": 6, "loss": 0.25, "seconds_left": left})
    assert state_of(folder).seconds_left in (None, 1.0)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"steps": "many"}', '{"steps": 1e999, "scores": [1], "options": 3}', "\0" * 99,
     '{"steps": -4, "created": 5}', "[" * 10_000],
)  # fmt: skip
def test_whatever_is_in_its_files_a_run_has_a_state(runs, content):
    folder = make_run(runs, "a", 2)
    for name in ("run.json", "process.json", "stop.json", "scoring.json", "teach.json"):
        (folder.path / name).write_text(content)
    log(folder, {"step": 2**60}, {"step": True}, {"step": 3, "loss": None})
    with (folder.path / "log.jsonl").open("a") as file:
        file.write(content)
    state = state_of(folder)
    assert state.teaching is None and state.status in (KILLED, PAUSED, FINISHED)
    assert (state.step >= 2 and state.records and state.steps is None) or state.steps >= 0


def test_links_that_lead_out_of_a_run_are_not_followed(runs, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text('{"step": 77, "loss": 1, "steps": 77, "pid": 1, "started": 1}\n')
    folder = make_run(runs, "a", 2)
    (folder.path / "log.jsonl").unlink()
    for name in ("log.jsonl", "run.json", "process.json", "train.log"):
        (folder.path / name).symlink_to(secret)
    state = state_of(folder)
    assert (state.process, state.manifest, state.last, state.records) == (None, {}, (), ())
    assert state.step == 2


def test_a_named_pipe_holds_nobody_up(runs):
    folder = make_run(runs, "a", 2)
    (folder.path / "log.jsonl").unlink()
    for name in ("log.jsonl", "run.json", "process.json", "train.log"):
        os.mkfifo(folder.path / name)
    assert state_of(folder).status == PAUSED


def test_a_run_of_a_newer_version_is_known_as_such(runs):
    folder = make_run(runs, "a", 5)
    known = json.loads((folder.path / "teach.json").read_text())
    assert not folder.is_newer
    (folder.path / "teach.json").write_text(json.dumps(known | {"version": 2, "more": 1}))
    assert folder.is_newer and folder.is_ours and folder.teaching is None


def test_steps_of_a_run_that_goes_on_are_those_it_waits_for(runs):
    folder = make_run(runs, "a", 5)
    process(folder, ended="Stopped.", stopped=True, steps=200)
    folder.write(teaching("a", options=(*OPTIONS[:2], "--max_train_steps", "300"), queued="x"))
    assert (state_of(folder).status, state_of(folder).steps) == (QUEUED, 300)


# The log


def test_only_what_was_added_to_a_log_is_read(runs, monkeypatch):
    folder, logs = make_run(runs, "a", 3), RunLogs()
    assert len(logs.records(folder.path)) == 3
    read = []
    monkeypatch.setattr(run_log, "record_in", lambda line: read.append(line))
    logs.records(folder.path)
    assert not read
    log(folder, {"step": 4})
    logs.records(folder.path)
    assert b"".join(read).count(b"step") == 1


def test_a_line_that_is_half_written_is_read_when_it_is_whole(runs):
    folder, logs = make_run(runs, "a", 1), RunLogs()
    with (folder.path / "log.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
        file.flush()
        assert len(logs.records(folder.path)) == 1
        file.write('ss": 0.5}')
        file.flush()
        assert len(logs.records(folder.path)) == 2
        file.write("\n")
    assert [each["step"] for each in logs.records(folder.path)] == [1, 2]


def test_an_earlier_run_in_the_same_folder_is_not_mixed_with_this_one(runs):
    folder, logs = make_run(runs, "a"), RunLogs()
    log(folder, {"step": 1, "run_id": "old"}, {"step": 2, "run_id": "old"})
    log(folder, {"step": 1, "run_id": "new"})
    assert [each["run_id"] for each in logs.records(folder.path)] == ["new"]


def test_a_log_that_was_written_anew_is_read_anew(runs):
    folder, logs = make_run(runs, "a", 9), RunLogs()
    logs.records(folder.path)
    (folder.path / "log.jsonl").write_text('{"step": 1, "loss": 5}\n')
    assert [each["loss"] for each in logs.records(folder.path)] == [5]


def test_of_a_million_records_as_many_are_kept_as_can_be_shown(runs):
    folder, logs = make_run(runs, "a"), RunLogs()
    with (folder.path / "log.jsonl").open("w") as file:
        for first in range(0, 1_000_000, 10_000):
            file.write(
                "".join(f'{{"step": {s}, "loss": 0.5}}\n' for s in range(first, first + 10_000))
            )
            file.write(f'{{"step": {first + 9_999}, "held_out_loss": 0.5}}\n')
    found = logs.records(folder.path)
    assert len(found) < 2 * run_log.MAX_RECORDS
    assert found[-1]["step"] == 999_999 and found[0]["step"] < 1_000
    assert sum("loss" not in each for each in found) == 100
    for step in range(1_000_000, 1_000_000 + 2 * run_log.MAX_RECORDS):
        log(folder, {"step": step, "loss": 0.1})
    assert len(logs.records(folder.path)) <= 2 * run_log.MAX_RECORDS


def test_of_a_log_beyond_its_bound_the_end_is_read(runs, monkeypatch):
    monkeypatch.setattr(run_log, "MAX_BYTES", 60)
    folder = make_run(runs, "a", 99)
    found = RunLogs().records(folder.path)
    assert 0 < len(found) < 4 and found[-1]["step"] == 99


# The folder


def test_runs_are_found_whoever_made_them_and_nothing_else_is(runs, tmp_path):
    make_run(runs, "ours")
    make_run(runs, "theirs", 3, taught=False)
    (runs / "pictures" / "set").mkdir(parents=True)
    (runs / "empty").mkdir()
    (runs / "link").symlink_to(make_run(tmp_path / "elsewhere", "x", 3).path)
    assert {folder.name for folder in RunsFolder(runs).runs()} == {"ours", "theirs"}


def test_a_process_that_ends_orderly_leaves_the_runs_model_alone(runs):
    folder = make_run(runs, "a", 5)
    note_end(folder.path, None)
    finish(folder, 5)
    assert state_of(folder).status == FINISHED
