"""Kills, full disks and signals: nothing that was saved is lost, nothing diverges silently.

All of it is run by `make test-all`; `make test` runs a selection.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from runs import config_for, fresh_run, prepared
from safetensors.torch import load_file

from core import files
from errors import UserError
from training import checkpoint
from training.checkpoint import find, what_is_wrong
from training.loop import train

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def zygote():
    """`zygote(config, **task)`: exit code of a run that is treated as the task says."""
    command = [sys.executable, str(ROOT / "tests" / "zygote.py")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:

        def ask(config, **task) -> dict:
            log = str(config.output.with_suffix(".log"))
            task = {"options": asdict(config), "log": log, **task}
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


@pytest.fixture
def config(tiny_model, tmp_path):
    """A run of 12 steps that saves after every second one."""
    return config_for(
        tiny_model,
        tmp_path,
        max_train_steps=12,
        checkpointing_steps=2,
        checkpoints_total_limit=2,
        use_ema=True,
        train_batch_size=2,
        dataloader_num_workers=0,
        resume_from_checkpoint="auto",
    )


def ended(config) -> str:
    """What the last run of `config` wrote to the terminal."""
    return config.output.with_suffix(".log").read_text()


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.name}/{name}": tensor
        for path in sorted(folder.glob("*/*.safetensors"))
        for name, tensor in load_file(path).items()
        if path.parent.parent == folder and not path.parent.name.startswith("checkpoint")
    }


def assert_same_model(folder: Path, other: Path) -> None:
    first, second = weights_of(folder), weights_of(other)
    assert first.keys() == second.keys() and len(first) > 100
    assert all(torch.equal(first[name], second[name]) for name in first)


def whole_checkpoints(output: Path) -> list[int]:
    """The steps of the checkpoints that are there; each must be whole, whatever happened."""
    folders = list(output.glob("checkpoint-[0-9]*"))  # a rehearsal is none
    assert [what_is_wrong(folder) for folder in folders] == [None] * len(folders)
    return sorted(int(folder.name.split("-")[1]) for folder in folders)


def kill_at_random(zygote, config, kills: int, seed: int) -> None:
    """Kill a run at `kills` random moments; however often, it ends with the bits of an unbroken
    one, and never goes back behind a checkpoint."""
    unbroken = replace(config, output_dir=config.output_dir + "-unbroken")
    seconds = zygote(unbroken)["seconds"]
    moments, before, rounds = random.Random(seed), 0, 0
    done = 0
    while done < kills:
        end = zygote(config, kill_after=moments.uniform(0.1, 1.0) * seconds)
        done += end["code"] == -signal.SIGKILL
        steps = whole_checkpoints(config.output)
        assert max(steps, default=0) >= before
        before = max(steps, default=0)
        if end["code"] != -signal.SIGKILL or before == config.max_train_steps:
            assert zygote(config)["code"] == 0, ended(config)
            assert_same_model(config.output, unbroken.output)
            shutil.rmtree(config.output)
            before, rounds = 0, rounds + 1
    assert zygote(config)["code"] == 0, ended(config)
    assert_same_model(config.output, unbroken.output)


def test_a_run_killed_at_random_moments_ends_as_if_it_had_not_been(zygote, config):
    kill_at_random(zygote, config, kills=5, seed=1)


@pytest.mark.slow
def test_a_run_killed_at_100_random_moments_ends_as_if_it_had_not_been(zygote, config):
    kill_at_random(zygote, config, kills=100, seed=2)


def kill_in_a_save(zygote, config, tmp_path, every: int) -> None:
    """Kill a run at its file operations while it saves checkpoint 8, one after the other."""
    unbroken = replace(config, output_dir=config.output_dir + "-unbroken")
    assert zygote(unbroken)["code"] == 0, ended(unbroken)
    half = replace(config, max_train_steps=6)
    assert zygote(half)["code"] == 0, ended(half)
    shutil.copytree(config.output, tmp_path / "half")
    counted = tmp_path / "operations"
    assert zygote(config, step=8, crash_at=None, counted=str(counted))["code"] == 0
    operations = counted.read_text().splitlines()
    later = next(i for i, what in enumerate(operations) if "checkpoint-10" in what)
    assert later > 20
    for number in range(1, later + 1, every):
        shutil.rmtree(config.output)
        shutil.copytree(tmp_path / "half", config.output)
        end = zygote(config, step=8, crash_at=number)
        assert end["code"] == -signal.SIGKILL, operations[number - 1]
        steps = whole_checkpoints(config.output)
        assert steps and max(steps) in (6, 8), operations[number - 1]
        assert zygote(config)["code"] == 0, ended(config)
        assert_same_model(config.output, unbroken.output)
        assert not list(config.output.glob(".checkpoint*"))


def test_a_kill_at_some_file_operations_of_a_save_loses_nothing(zygote, config, tmp_path):
    kill_in_a_save(zygote, config, tmp_path, every=9)


@pytest.mark.slow
def test_a_kill_at_any_file_operation_of_a_save_loses_nothing(zygote, config, tmp_path):
    kill_in_a_save(zygote, config, tmp_path, every=1)


def kill_while_the_model_is_replaced(zygote, config, tmp_path, every: int) -> None:
    """Kill a second run at the file operations of its final save over an earlier model: one of the
    two models is there whole, for whoever reads it, and once the next run has started."""
    assert zygote(replace(config, max_train_steps=2))["code"] == 0, ended(config)
    old = tmp_path / "old"
    shutil.copytree(config.output, old)
    counted = tmp_path / "operations"
    more = replace(config, max_train_steps=4)
    assert zygote(more, crash_in_model_at=None, counted=str(counted))["code"] == 0, ended(more)
    new = config.output.rename(tmp_path / "new")
    operations = counted.read_text().splitlines()
    moves = [i for i, what in enumerate(operations, 1) if "os.rename" in what]
    assert len(moves) > 10
    for number in moves[::every]:
        shutil.rmtree(config.output, ignore_errors=True)
        shutil.copytree(old, config.output)
        assert zygote(more, crash_in_model_at=number)["code"] == -signal.SIGKILL
        for start in (lambda: None, lambda: fresh_run(more).close()):
            start()
            kept = json.loads((config.output / "run.json").read_text())["steps"]
            assert_same_model(config.output, {2: old, 4: new}[kept])
        assert zygote(more)["code"] == 0, ended(more)
        assert_same_model(config.output, new)


def test_a_kill_while_a_model_is_replaced_leaves_one_of_the_two(zygote, config, tmp_path):
    kill_while_the_model_is_replaced(zygote, config, tmp_path, every=16)


@pytest.mark.slow
def test_a_kill_at_any_move_while_a_model_is_replaced_leaves_one(zygote, config, tmp_path):
    kill_while_the_model_is_replaced(zygote, config, tmp_path, every=1)


def test_a_full_disk_is_one_sentence_and_leaves_the_checkpoint_before(zygote, config):
    assert zygote(config)["code"] == 0, ended(config)
    sizes = {path.name: path.stat().st_size for path in config.output.glob("checkpoint-12/**/*")}
    for limit in (3_000, 20_000, sizes["optimizer.safetensors"] - 1):
        shutil.rmtree(config.output, ignore_errors=True)
        assert zygote(config, fill_disk=6, limit=limit)["code"] == 2, f"{limit}: {ended(config)}"
        (sentence,) = [line for line in ended(config).splitlines() if line.startswith("error")]
        assert "checkpoint-6 cannot be written" in sentence and "Make room" in sentence
        assert whole_checkpoints(config.output) == [2, 4]
        assert not list(config.output.glob(".checkpoint*"))
    assert zygote(config)["code"] == 0, ended(config)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_signal_saves_within_one_step_and_has_an_exit_code_of_its_own(tiny_model, tmp_path, name):
    config = config_for(tiny_model, tmp_path, max_train_steps=100_000, log_every=1)
    options = [f"--{k}={v}" for k, v in asdict(config).items()
               if k in ("pretrained_model_name_or_path", "train_data_dir", "output_dir",
                        "max_train_steps", "log_every", "train_batch_size")]  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "train_text_to_image.py", *options],
        cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        log = config.output / "log.jsonl"
        while process.poll() is None and not (log.exists() and log.read_text()):
            time.sleep(0.02)
        logged = len(log.read_text().splitlines())
        process.send_signal(getattr(signal, name))
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 75, said
    (step,) = whole_checkpoints(config.output)
    assert logged <= step <= logged + 10
    assert f"Stopped after step {step} of 100000; go on with --resume_from_checkpoint" in said


def test_two_runs_into_one_folder_the_second_is_refused(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path)
    config.output.mkdir()
    with FileLock(config.output / ".lock"), pytest.raises(UserError, match="Another run is writ"):
        fresh_run(config)
    fresh_run(config).close()


def test_a_folder_that_does_not_keep_what_is_written_is_found_before_the_first_step(
    tiny_model, tmp_path, monkeypatch
):
    config = config_for(tiny_model, tmp_path)
    run, learner, latents = prepared(config)
    plain = checkpoint.save_file

    def forgetful(tensors, path):
        plain(tensors, path)
        if path.name == "optimizer.safetensors":
            zeros = bytes(path.stat().st_size)
            flush = lambda *_, **__: path.exists() and path.write_bytes(zeros)  # noqa: E731
            monkeypatch.setattr(files, "flush", flush)

    monkeypatch.setattr(checkpoint, "save_file", forgetful)
    with pytest.raises(UserError, match=r"does not keep what is written to it \(optimizer"):
        train(learner, latents, config, run)
    assert find(config.output, "auto") is None
