"""Several processes, by `accelerate launch` and gloo on the CPU: the same run, shared."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
from runs import PROPORTIONAL, add_picture, config_for, prepared
from safetensors.torch import load_file
from scorers import tiny_scorer as tiny_scorer  # a fixture

from training.loop import train

ROOT = Path(__file__).parent.parent


FSDP = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config: {fsdp_version: 2}
"""


def launched(config, *how: str) -> subprocess.Popen:
    """The command with the options of `config` that are not as usual, in two processes that
    accelerate starts as `how` says."""
    usual = {field.name: field.default for field in fields(config)}
    options = [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in asdict(config).items() if value != usual[name]
    ]  # fmt: skip
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch", *(how or ["--multi_gpu"])),
        *("--num_processes=2", "--num_machines=1", "--mixed_precision=no"),
        *("--dynamo_backend=no", "--main_process_port=0", "train_text_to_image.py"),
    ]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    environment["OMP_NUM_THREADS"] = "1"
    return subprocess.Popen(
        [*command, *options], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def losses_of(config) -> list[float]:
    lines = map(json.loads, (config.output / "log.jsonl").open())
    return [line["loss"] for line in lines if "loss" in line]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """Of the saved UNet."""
    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")


@pytest.fixture
def config(tiny_model, tmp_path):
    return config_for(
        tiny_model, tmp_path, max_train_steps=6, log_every=1, use_ema=True, checkpointing_steps=4
    )


@pytest.mark.parametrize("shard", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_processes_learn_what_one_does_with_the_doubled_batch(
    config, tiny_scorer, tmp_path, shard
):
    config = replace(config, **PROPORTIONAL)
    halves = replace(config, train_batch_size=2, output_dir=str(tmp_path / "two"))
    # The first process alone draws and scores, unless weights are sharded; all of them judge.
    watched = {"validation_prompt": "x", "validation_steps": 3, "validation_scorer": tiny_scorer}
    halves, how = replace(halves, **watched), ()
    if shard:
        (tmp_path / "fsdp.yaml").write_text(FSDP)
        how = (f"--config_file={tmp_path / 'fsdp.yaml'}",)
        halves = replace(halves, latents_dir=str(tmp_path / "latents"))
    else:  # steps of three pictures, which two do not share evenly
        for number in range(20, 23):
            add_picture(tmp_path / "data", number, size=(64, 32))
        config, halves = (replace(each, aspect_ratio_buckets=True) for each in (config, halves))
    with launched(halves, *how) as process:
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert len(list(halves.output.glob("validation/*.png"))) == 3 and "CLIP score" in said
    run, learner, latents = prepared(config)
    train(learner, latents, config, run)
    learner.save(config.output, {})
    assert losses_of(halves) == pytest.approx(losses_of(config), rel=1e-4)
    saved = load_file(
        halves.output / "checkpoint-4" / "unet" / "diffusion_pytorch_model.safetensors"
    )
    ours = load_file(
        config.output / "checkpoint-4" / "unet" / "diffusion_pytorch_model.safetensors"
    )
    for name, weight in ours.items():
        torch.testing.assert_close(saved[name], weight, atol=1e-5, rtol=1e-5)
    two, one = weights_of(halves.output), weights_of(config.output)
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=1e-5, rtol=1e-5)
    if shard:  # each process encoded some; the file is whole
        (kept,) = (load_file(path) for path in Path(halves.latents_dir).iterdir())
        (bucket,) = latents.buckets
        assert torch.equal(kept["mean"], bucket.mean) and torch.equal(kept["std"], bucket.std)
    # What two have begun, one may finish: as many pictures per step.
    resumed = replace(config, output_dir=halves.output_dir, resume_from_checkpoint="latest")
    run, learner, latents = prepared(resumed)
    train(learner, latents, resumed, run)
