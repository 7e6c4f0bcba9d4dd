"""The command: from a folder of pictures to a folder that opens, or one sentence."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import StableDiffusionPipeline
from PIL import Image
from runs import config_for, fresh_run, prepared

import train_text_to_image
from core.errors import UserError
from sampling.request import SCHEDULERS
from training.run import refuse_impossible

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def forgetful_accelerate():
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_folder_of_pictures_becomes_a_model_that_draws(tiny_model, tmp_path):
    prompts = ("a red creature",)
    config = config_for(tiny_model, tmp_path, use_ema=True, validation_prompts=prompts)
    train_text_to_image.main(config)

    before = StableDiffusionPipeline.from_pretrained(tiny_model)
    after = StableDiffusionPipeline.from_pretrained(config.output)
    for part, learned in (("unet", True), ("text_encoder", False), ("vae", False)):
        old, new = (getattr(pipe, part).state_dict() for pipe in (before, after))
        changed = [not torch.equal(old[name], new[name]) for name in old]
        assert all(changed) if learned else not any(changed)
    after.set_progress_bar_config(disable=True)
    picture = after("a red creature", num_inference_steps=2, output_type="pt").images
    assert picture.shape == (1, 3, 32, 32) and picture.isfinite().all()
    assert (config.output / "validation" / "step-000003-0.png").exists()

    manifest = json.loads((config.output / "run.json").read_text())
    assert manifest["steps"] == 3
    assert manifest["base_model"] == tiny_model
    assert manifest["dataset"]["pictures"] == 12
    assert manifest["options"] == json.loads(json.dumps(config.shown))
    assert "hub_token" not in manifest["options"]
    assert manifest["versions"]["torch"] == torch.__version__.split("+")[0]


def test_a_dry_run_prints_the_plan_and_loads_no_weights(tmp_path, capsys):
    config = config_for("nobody/nothing", tmp_path, dry_run=True, gradient_accumulation_steps=2)
    train_text_to_image.main(config)
    plan = " ".join(capsys.readouterr().err.split())
    assert "12 pictures" in plan
    assert "steps 3 of 8 pictures: 2.0 epochs" in plan


def test_the_data_is_checked_before_the_model_is_looked_for(tmp_path):
    config = replace(config_for("nobody/nothing", tmp_path), train_data_dir=str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"data folder .* does not exist"):
        train_text_to_image.main(config)


def test_an_output_that_cannot_be_written_is_found_at_once(tmp_path):
    config = config_for("nobody/nothing", tmp_path)
    config.output.write_text("a file is in the way")
    with pytest.raises(UserError, match="out cannot be written"):
        train_text_to_image.main(config)


def test_from_the_shell_a_mistake_is_one_sentence_and_code_2(tmp_path):
    options = [f"--train_data_dir={tmp_path / 'none'}", f"--output_dir={tmp_path / 'out'}"]
    ended = subprocess.run(
        [sys.executable, "train_text_to_image.py", "--pretrained_model_name_or_path=x", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    (sentence,) = ended.stderr.strip().splitlines()
    assert sentence.startswith("error: The data folder") and sentence.endswith("--train_data_dir.")


def test_a_batch_larger_than_the_data_is_all_of_it(tiny_model, tmp_path, capsys):
    """As diffusers takes it."""
    config = config_for(tiny_model, tmp_path, train_batch_size=16, num_train_epochs=3,
                        max_train_steps=None, checkpointing_steps=2, log_every=1)  # fmt: skip
    train_text_to_image.main(config)
    said = capsys.readouterr().err
    assert "note: --train_batch_size is 12 instead of 16" in said
    assert "3 of 12 pictures: 3.0 epochs" in " ".join(said.split())
    lines = [json.loads(line) for line in (config.output / "log.jsonl").open()]
    assert [line["epoch"] for line in lines if "epoch" in line] == [1, 2, 3]
    assert json.loads((config.output / "run.json").read_text())["options"]["train_batch_size"] == 12
    again = replace(config, resume_from_checkpoint="latest", num_train_epochs=4.0)
    AcceleratorState._reset_state(reset_partial_state=True)
    train_text_to_image.main(again)  # the same command goes on


@pytest.mark.parametrize("kind", ["DPMSolverMultistepScheduler", "DDPMScheduler"])
def test_validation_pictures_are_drawn_by_the_scheduler_that_is_asked_for(
    tiny_model, tmp_path, kind
):
    config = config_for(
        tiny_model, tmp_path, validation_prompt="x", validation_scheduler=kind, max_train_steps=1
    )
    train_text_to_image.main(config)
    with Image.open(config.output / "validation" / "step-000001-0.png") as image:
        drawn_by = json.loads(image.text["sd-pokemon"])["scheduler"]
    assert SCHEDULERS[drawn_by] == (kind, {})


def test_notes_on_the_options_stand_under_the_plan(tiny_model, tmp_path, capsys):
    config = config_for(tiny_model, tmp_path, dry_run=True, validation_images=("a.png",))
    train_text_to_image.main(config)
    said = capsys.readouterr().err
    assert said.index("output ") < said.index("note: --validation_images changes nothing: ")


def test_a_scorer_that_is_none_is_found_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("training.dataset.CaptionedImages", None)
    config = config_for("nobody/nothing", tmp_path, validation_prompt="x", validation_scorer="foo")
    with pytest.raises(UserError, match="Unknown scorer 'foo'"):
        train_text_to_image.main(config)


def test_accelerates_precision_is_that_of_the_run(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    config = config_for(tiny_model, tmp_path, mixed_precision=None, method="lora")
    config = fresh_run(config).config
    assert config.mixed_precision == "bf16"
    _, learner, _ = prepared(config)
    frozen = {w.dtype for w in learner.unet.parameters() if not w.requires_grad}
    assert frozen == {torch.bfloat16}


def test_deepspeed_is_refused_with_what_does_the_same(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(UserError, match=r"DeepSpeed.*--shard"):
        fresh_run(config_for(tiny_model, tmp_path))


@pytest.mark.parametrize(
    ("options", "device", "processes", "said"),
    [
        ({"mixed_precision": "fp16"}, "cpu", 1, "CPU cannot train in fp16"),
        ({"shard": True}, "cuda", 1, "needs several processes"),
        ({"shard": True, "mixed_precision": "fp16"}, "cuda", 2, "--mixed_precision bf16"),
        ({"optimizer_in_backward": True}, "cuda", 2, "works in one process"),
        ({"optimizer_in_backward": True, "mixed_precision": "fp16"}, "cuda", 1, "works in one"),
    ],
)
def test_what_this_machine_cannot_do_is_refused(tmp_path, options, device, processes, said):
    accelerator = SimpleNamespace(num_processes=processes, device=torch.device(device))
    with pytest.raises(UserError, match=said):
        refuse_impossible(config_for("-", tmp_path, **options), accelerator)
    refuse_impossible(config_for("-", tmp_path), accelerator)
