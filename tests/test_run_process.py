"""process.json: whether a run is alive, and why it ended, whoever asks and whatever was killed."""

import json
import os
import signal
import subprocess
import sys

import pytest
from runs import config_for

import train_text_to_image
from core.errors import Stopped, UserError
from core.run_process import (
    FILE,
    RunProcess,
    note_end,
    process_of,
    read_process,
    this_process,
    write_process,
)
from core.signals import Terminated


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()


def test_a_process_that_runs_is_alive_and_one_that_was_killed_is_not(tmp_path, sleeper):
    write_process(tmp_path, process_of(sleeper.pid))
    assert read_process(tmp_path).alive
    os.kill(sleeper.pid, signal.SIGKILL)
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # a zombie: nobody has waited yet
    assert not read_process(tmp_path).alive
    sleeper.wait()
    assert not read_process(tmp_path).alive and process_of(sleeper.pid) is None


def test_another_process_of_the_same_number_is_not_mistaken_for_it(tmp_path):
    own = this_process()
    write_process(tmp_path, RunProcess(own.pid, own.started - 60))
    assert own.alive and not read_process(tmp_path).alive


@pytest.mark.parametrize(
    ("error", "stopped"),
    [(Stopped("Stopped after step 3."), True), (Terminated(signal.SIGTERM), True),
     (KeyboardInterrupt(), True), (UserError("The disk is full."), False),
     (ZeroDivisionError("division"), False)],
)  # fmt: skip
def test_a_run_that_ends_before_its_model_is_finished_says_why(tmp_path, error, stopped):
    write_process(tmp_path, this_process())
    note_end(tmp_path, error)
    found = read_process(tmp_path)
    assert found.stopped is stopped and found.ended and not found.alive
    assert str(error) in found.ended


def test_a_finished_run_leaves_no_record(tmp_path):
    write_process(tmp_path, this_process())
    note_end(tmp_path, None)
    assert read_process(tmp_path) is None and not (tmp_path / FILE).exists()


def test_secrets_are_not_written_down(monkeypatch):
    words = ["train.py", "--hub_token", "hf_secret", "--seed", "7", "--hub_token=hf_secret"]
    monkeypatch.setattr(sys, "argv", words)
    assert this_process().command == ("train.py", "--seed", "7")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"pid": "1", "started": 0}', '{"pid": -4, "started": 0}',
     '{"pid": 1e9, "started": 0}', '{"pid": 12, "started": null}', "\0"],
)  # fmt: skip
def test_a_record_that_anybody_wrote_is_no_process(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    assert read_process(tmp_path) is None


def test_strange_values_beside_the_process_are_left_out(tmp_path):
    strange = {"pid": os.getpid(), "started": 1, "command": [1, "a"], "ended": 3, "steps": -1}
    (tmp_path / FILE).write_text(json.dumps(strange))
    assert read_process(tmp_path) == RunProcess(os.getpid(), 1.0, ("a",), ended="3")


def test_a_run_tells_its_process_and_steps_while_it_trains(tiny_model, tmp_path, monkeypatch):
    seen = []

    def plain(self, step, stop):
        seen.append(read_process(tmp_path / "out"))

    monkeypatch.setattr("training.validation.Validation.validate", plain)
    train_text_to_image.main(config_for(tiny_model, tmp_path, max_train_steps=2))
    assert seen and all(each.alive and each.steps == 2 for each in seen)
    assert read_process(tmp_path / "out") is None


def test_a_run_that_fails_leaves_its_sentence(tiny_model, tmp_path, monkeypatch):
    def fail(*_):
        raise UserError("The moon is full.")

    monkeypatch.setattr("training.loop.accumulate", fail)
    with pytest.raises(UserError):
        train_text_to_image.main(config_for(tiny_model, tmp_path))
    found = read_process(tmp_path / "out")
    assert found.ended.startswith("The moon is full.") and not found.stopped
