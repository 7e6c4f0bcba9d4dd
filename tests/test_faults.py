"""Kills, full disks and signals: nothing that was saved is lost, nothing diverges silently.

All of it is run by `make test-all`; `make test` runs a selection.
"""

import errno
import json
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from filelock import FileLock
from ports import some_port
from runs import config_for, fresh_run, prepared
from safetensors.torch import load_file

from core import files
from core.errors import UserError
from core.model_folder import finish
from core.signals import ENDING
from training import checkpoint_files
from training.checkpoint_files import find, what_is_wrong
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
        if path.parent.parent == folder and not path.parent.name.startswith(("checkpoint", "."))
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_kill_while_a_model_is_replaced_leaves_one_of_the_two(zygote, config, tmp_path):
    kill_while_the_model_is_replaced(zygote, config, tmp_path, every=16)


@pytest.mark.slow
def test_a_kill_at_any_move_while_a_model_is_replaced_leaves_one(zygote, config, tmp_path):
    kill_while_the_model_is_replaced(zygote, config, tmp_path, every=1)


def test_where_nothing_can_be_written_any_more_the_checkpoint_before_stays(zygote, config):
    assert zygote(config)["code"] == 0, ended(config)
    unbroken = config.output.rename(config.output.with_name("unbroken"))
    sizes = {path.name: path.stat().st_size for path in unbroken.glob("checkpoint-12/**/*")}
    for limit in (10_000, 20_000, sizes["optimizer.safetensors"] - 1):
        shutil.rmtree(config.output, ignore_errors=True)
        end, said = zygote(config, fill_disk=6, limit=limit), sentences_of(config)
        assert ended(config).count("checkpoint-6 cannot be written") == 1
        assert whole_checkpoints(config.output) == [2, 4]
        assert not list(config.output.glob(".[!l]*"))
        assert not list(config.output.parent.glob("*elsewhere*"))
        if end["code"] == 0:  # a model is smaller than a checkpoint
            assert_same_model(config.output, unbroken)
            continue
        assert end["code"] == 2 and f"{config.output} cannot be written" in said[0]
        assert "No other place here could take what was learned up to step 12" in said[0]
    assert zygote(config)["code"] == 0, ended(config)


def sentences_of(config) -> list[str]:
    """What the last run ended with; never a traceback."""
    assert "Traceback" not in ended(config), ended(config)
    return [line for line in ended(config).splitlines() if line.startswith("error: ")]


@pytest.fixture
def short(config):
    """A run of 3 steps without a checkpoint on the way."""
    return replace(config, max_train_steps=3, checkpointing_steps=100)


def assert_nothing_lost(zygote, config, trained: int, unbroken: Path) -> None:
    """After a run that failed: its model is there, here or elsewhere, or a checkpoint of its last
    step, which ends in the same bits as a run that did not fail."""
    elsewhere = Path(f"{config.output}-elsewhere")
    finish(config.output)
    for place in (config.output, elsewhere):
        if (place / "run.json").is_file():
            assert json.loads((place / "run.json").read_text())["steps"] == trained == 3
            return assert_same_model(place, unbroken)
    (folder,) = (
        folder for place in (config.output, elsewhere)
        for folder in place.glob(f"checkpoint-{trained}") if what_is_wrong(folder) is None
    )  # fmt: skip
    named = "latest" if folder.parent == config.output else str(folder)
    assert f"go on with --resume_from_checkpoint {named}" in ended(config)
    end = zygote(replace(config, resume_from_checkpoint=named))
    assert end["code"] == 0, ended(config)
    assert_same_model(config.output, unbroken)


def fail_at_operations(zygote, short, tmp_path, chosen, error: int, lasting: bool) -> None:
    """Let file operations of a run fail, one in each of several runs, or all from one on: the run
    ends whole, or with a sentence and with all that it had trained."""
    unbroken = replace(short, output_dir=short.output_dir + "-unbroken")
    counted, steps = tmp_path / "operations", tmp_path / "steps"
    task = {"fail_at": 0, "counted": str(counted), "steps": str(steps)}
    assert zygote(unbroken, **task)["code"] == 0, ended(unbroken)
    operations = counted.read_text().splitlines()
    for number in chosen(operations):
        for place in (short.output, Path(f"{short.output}-elsewhere")):
            shutil.rmtree(place, ignore_errors=True)
        steps.unlink(missing_ok=True)
        task |= {"fail_at": number, "error": error, "lasting": lasting}
        end, where = zygote(short, **task), f"{number}, {operations[number - 1]}"
        said = sentences_of(short)
        assert (end["code"], len(said)) in ((0, 0), (2, 1)), f"{where}: {ended(short)}"
        trained = len(steps.read_bytes()) if steps.exists() else 0
        if trained or end["code"] == 0:
            assert_nothing_lost(zygote, short, trained, unbroken.output)


def some(operations: list[str]) -> list[int]:
    """Numbers of a few file operations of the rehearsal, of the loop and of the final save."""
    return [*range(7, len(operations) + 1, len(operations) // 7)]


def all_of_them(operations: list[str]) -> range:
    assert len(operations) > 150
    return range(1, len(operations) + 1)


@pytest.mark.slow
@pytest.mark.parametrize(("error", "lasting"), [(errno.ENOSPC, True), (errno.EIO, False)])
def test_a_disk_that_fails_at_some_file_operations_costs_nothing_that_was_trained(
    zygote, short, tmp_path, error, lasting
):
    fail_at_operations(zygote, short, tmp_path, some, error, lasting)


@pytest.mark.slow
@pytest.mark.parametrize("lasting", [True, False])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_at_any_file_operation_costs_nothing_that_was_trained(
    zygote, short, tmp_path, error, lasting
):
    fail_at_operations(zygote, short, tmp_path, all_of_them, error, lasting)


def test_a_disk_that_others_fill_meanwhile_has_room_for_the_model(zygote, short, small_disk):
    unbroken = replace(short, output_dir=short.output_dir + "-unbroken")
    assert zygote(unbroken)["code"] == 0, ended(unbroken)
    disk = small_disk(24)
    here = replace(short, output_dir=str(disk / "out"), checkpointing_steps=2)
    task = {"disk": str(disk), "full_after": 1, "elsewhere": short.output_dir + "-elsewhere"}
    log = {"log": str(short.output.with_suffix(".log"))}
    end = zygote(here, reserved=True, **task, **log)
    assert end["code"] == 0, ended(short)
    assert_same_model(here.output, unbroken.output)
    assert whole_checkpoints(here.output) == [2]
    assert "warning" not in ended(short)


def test_where_no_room_can_be_set_aside_the_model_goes_elsewhere(zygote, short, small_disk):
    unbroken = replace(short, output_dir=short.output_dir + "-unbroken")
    assert zygote(unbroken)["code"] == 0, ended(unbroken)
    disk, elsewhere = small_disk(24), short.output.with_name("elsewhere")
    here = replace(short, output_dir=str(disk / "out"))
    end = zygote(here, disk=str(disk), full_after=1, reserved=False, elsewhere=str(elsewhere),
                 log=str(short.output.with_suffix(".log")))  # fmt: skip
    (sentence,) = sentences_of(short)
    assert end["code"] == 2 and f"{here.output} cannot be written" in sentence
    (folder,) = elsewhere.iterdir()
    assert f"go on with --resume_from_checkpoint {folder}; only the saving is left" in sentence
    (disk / "others").unlink()
    assert zygote(replace(here, resume_from_checkpoint=str(folder)))["code"] == 0
    assert_same_model(here.output, unbroken.output)


@pytest.mark.slow
def test_a_disk_of_any_size_gives_a_model_or_a_sentence(zygote, short, small_disk):
    """Whatever the operation at which a real file system has no more room."""
    ended_well = []
    for size in range(1, 16):
        disk = small_disk(size)
        here = replace(short, output_dir=str(disk / "out"), checkpointing_steps=1)
        log = str(short.output.with_suffix(".log"))
        end = zygote(here, log=log, elsewhere=str(disk / "elsewhere"))
        said = sentences_of(short)
        assert (end["code"], len(said)) in ((0, 0), (2, 1)), ended(short)
        ended_well.append(end["code"] == 0)
        if ended_well[-1]:
            StableDiffusionPipeline.from_pretrained(here.output)
    assert ended_well == sorted(ended_well) and ended_well[-1] and not ended_well[0]


def test_a_kill_while_pictures_are_encoded_costs_those_of_one_part(zygote, short, tmp_path):
    folder, counted = tmp_path / "latents", tmp_path / "encoded"
    here = replace(short, latents_dir=str(folder))
    end = zygote(here, encoded=str(counted), kill_at=9)
    assert end["code"] == -signal.SIGKILL and counted.stat().st_size == 8
    assert zygote(here, encoded=str(counted))["code"] == 0, ended(here)
    assert counted.stat().st_size == 12
    (file,) = folder.iterdir()
    assert file.name.startswith("latents-")
    plain = replace(short, output_dir=short.output_dir + "-plain")
    assert zygote(plain)["code"] == 0, ended(plain)
    assert_same_model(here.output, plain.output)


@pytest.fixture
def endless(config):
    """A run that only a signal ends."""
    return replace(config, max_train_steps=100_000, checkpointing_steps=100_000, log_every=1)


@pytest.mark.parametrize("name", [signal.Signals(number).name for number in ENDING])
def test_a_signal_saves_within_one_step_and_has_an_exit_code_of_its_own(
    zygote, endless, tmp_path, name
):
    end = zygote(endless, signal=name, steps=str(tmp_path / "steps"))
    assert end["code"] == 75, ended(endless)
    before, _, after = (tmp_path / "steps").read_text().partition("!")
    (step,) = whole_checkpoints(endless.output)
    assert step == len(before + after) and len(after) <= 1
    said = f"Stopped after step {step} of 100000; go on with --resume_from_checkpoint latest."
    assert said in ended(endless)


def test_a_signal_to_one_of_two_processes_stops_both_after_the_same_step(zygote, endless):
    assert zygote(endless, signal="SIGUSR1", port=str(some_port())) == [75, 75]
    said = [endless.output.with_suffix(f".log{rank}").read_text() for rank in range(2)]
    (step,) = whole_checkpoints(endless.output)
    assert all(f"Stopped after step {step} of 100000" in each for each in said), said


def test_a_closed_terminal_ends_like_sigterm(zygote, endless):
    assert zygote(endless, terminal=True)["code"] == 75
    assert whole_checkpoints(endless.output)


def test_a_signal_during_the_final_save_ends_the_run_after_it(zygote, short):
    end = zygote(short, signal_in_model="SIGTERM")
    assert end["code"] == 128 + signal.SIGTERM, ended(short)
    assert ended(short).endswith(f"The model is in {short.output}.\nEnded by SIGTERM.\n")
    StableDiffusionPipeline.from_pretrained(short.output)
    assert not (short.output / "report.html").exists()
    assert zygote(short)["code"] == 0  # the folder is free for the next run


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
    plain = checkpoint_files.save_file

    def forgetful(tensors, path):
        plain(tensors, path)
        if path.name == "optimizer.safetensors":
            zeros = bytes(path.stat().st_size)
            flush = lambda *_, **__: path.exists() and path.write_bytes(zeros)  # noqa: E731
            monkeypatch.setattr(files, "flush", flush)

    monkeypatch.setattr(checkpoint_files, "save_file", forgetful)
    with pytest.raises(UserError, match=r"does not keep what is written to it \(optimizer"):
        train(learner, latents, config, run)
    assert find(config.output, "auto") is None
