"""The loop: a stopped run ends like an unbroken one, and what goes wrong is said in time."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from runs import PROPORTIONAL, config_for, prepared

from core.errors import Stopped, UserError
from training.config import Config
from training.dataset import order
from training.loop import train
from training.optimizer_step import learning_rates


def trained(config: Config, preview=None):
    """The learner after the whole run."""
    run, learner, latents = prepared(config)
    train(learner, latents, config, run, preview)
    return learner


def assert_equal(learner, other) -> None:
    """Both end with the same bits, averages included."""
    for name, weight in learner.weights.items():
        assert torch.equal(weight, other.weights[name]), name
        if learner.ema:
            assert torch.equal(learner.ema.shadow[name], other.ema.shadow[name]), name


def log_of(config: Config) -> list[dict]:
    return [json.loads(line) for line in (config.output / "log.jsonl").open()]


def test_a_stopped_and_resumed_run_ends_with_the_same_bits_as_an_unbroken_one(tiny_model, tmp_path):
    options = {
        "train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_train_steps": 8,
        "use_ema": True,
        "train_text_encoder": True,
        "random_flip": True,
        "lr_scheduler": "cosine",
        "lr_warmup_steps": 2,
        "snr_gamma": 5.0,
        "checkpointing_steps": 5,  # in the middle of an epoch of three steps
    }
    whole = config_for(tiny_model, tmp_path, output_dir=str(tmp_path / "whole"), **options)
    broken = config_for(tiny_model, tmp_path, output_dir=str(tmp_path / "broken"), **options)

    looks = []

    def break_off(pipe, stop):
        looks.append(stop())
        if len(looks) == 2:  # the first is the base model's
            os.kill(os.getpid(), signal.SIGTERM)
        return []

    with pytest.raises(Stopped, match="Stopped after step 7 of 8"):
        trained(replace(broken, validation_prompts=("x",), validation_steps=6), break_off)
    checkpoints = {path.name for path in broken.output.glob("checkpoint-*")}
    assert checkpoints == {"checkpoint-5", "checkpoint-7"}
    unbroken = trained(whole)
    for checkpoint in ("checkpoint-5", "latest"):
        assert_equal(trained(replace(broken, resume_from_checkpoint=checkpoint)), unbroken)


@pytest.mark.parametrize(("optimizer", "rate"), [("muon", 0.02), ("prodigy", 1.0)])
def test_a_run_resumes_with_the_same_bits_and_not_with_another_optimizer(
    tiny_model, tmp_path, optimizer, rate
):
    config = config_for(
        tiny_model, tmp_path, optimizer=optimizer, checkpointing_steps=2, learning_rate=rate
    )
    unbroken, resumed = trained(config), replace(config, resume_from_checkpoint="latest")
    assert_equal(trained(resumed), unbroken)
    with pytest.raises(UserError, match=f"--optimizer was {optimizer}, now adamw"):
        trained(replace(resumed, optimizer="adamw"))


def test_two_passes_of_two_are_one_of_four_but_for_rounding(tiny_model, tmp_path):
    once = config_for(tiny_model, tmp_path, train_batch_size=4, max_train_steps=1, **PROPORTIONAL)
    twice = replace(
        once,
        train_batch_size=2,
        gradient_accumulation_steps=2,
        output_dir=str(tmp_path / "other"),
    )
    before, other = prepared(once)[1].weights, trained(twice).weights
    before = {name: weight.detach().clone() for name, weight in before.items()}
    moved = torch.cat([(other[name] - weight).flatten() for name, weight in before.items()])
    assert moved.abs().max() > 1e-3
    for name, weight in trained(once).weights.items():
        torch.testing.assert_close(weight, other[name], atol=1e-6, rtol=1e-5)
    assert log_of(once)[0]["loss"] == pytest.approx(log_of(twice)[0]["loss"], rel=1e-4)


def test_the_loss_falls_and_is_logged(tiny_model, tmp_path):
    config = config_for(
        tiny_model, tmp_path, max_train_steps=30, log_every=10, learning_rate=1e-2, seed=1
    )
    trained(config)
    lines = log_of(config)
    assert [line["step"] for line in lines] == [10, 20, 30]
    assert lines[0]["loss"] > 1.02 * lines[2]["loss"]
    assert lines[2]["epoch"] == 10
    assert all(line["pictures_per_second"] > 0 for line in lines)


def test_bf16_trains_nearly_like_fp32(tiny_model, tmp_path):
    half = config_for(tiny_model, tmp_path, mixed_precision="bf16", train_text_encoder=True)
    full = replace(half, mixed_precision="no", output_dir=str(tmp_path / "other"))
    low, high = trained(half), trained(full)
    assert {weight.dtype for weight in low.weights.values()} == {torch.float32}
    name = "unet.conv_out.weight"
    assert not torch.equal(low.weights[name], high.weights[name])
    torch.testing.assert_close(low.weights[name], high.weights[name], atol=5e-3, rtol=0)


def test_a_step_whose_loss_is_no_number_is_not_taken_and_its_picture_is_named(
    tiny_model, tmp_path, capsys
):
    config = config_for(tiny_model, tmp_path, train_batch_size=1, max_train_steps=6, use_ema=True)
    run, learner, latents = prepared(config)
    (bucket,) = latents.buckets
    bad = order(config.seed, 12, first=3, count=1)[0]
    bucket.mean[bad] = float("nan")
    train(learner, latents, config, run)
    assert f"Step 4 is skipped: its loss or gradient is non-finite; it learned from {bad}.png." in (
        capsys.readouterr().err
    )
    assert learner.all_finite()
    assert all(average.isfinite().all() for average in learner.ema.shadow.values())
    assert log_of(config)[-1]["skipped"] == 1


@pytest.mark.parametrize(
    "optimizer",
    [{}, {"optimizer": "muon"}, {"optimizer": "prodigy"}, {"optimizer_in_backward": True}],
)
def test_a_step_that_is_not_taken_changes_nothing(tiny_model, tmp_path, optimizer):
    config = config_for(tiny_model, tmp_path, max_train_steps=1, **optimizer)
    run, learner, latents = prepared(config)
    before = {name: weight.detach().clone() for name, weight in learner.weights.items()}
    latents.buckets[0].mean[:] = float("nan")
    train(learner, latents, config, run)
    for name, weight in learner.weights.items():
        assert torch.equal(weight, before[name]), name


def test_a_gradient_that_is_no_number_names_all_pictures_of_the_step(tiny_model, tmp_path, capsys):
    config = config_for(tiny_model, tmp_path, max_train_steps=1)
    run, learner, latents = prepared(config)
    learner.unet.conv_out.bias.register_hook(lambda gradient: gradient * float("inf"))
    train(learner, latents, config, run)
    said = capsys.readouterr().err
    assert all(name in said for name in latents.names(0, 4))


def test_too_many_such_steps_in_a_row_stop_the_run_with_the_last_good_state(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, max_train_steps=40, max_skipped_steps=3)
    run, learner, latents = prepared(config)
    latents.buckets[0].mean[:] = float("nan")
    with pytest.raises(UserError, match=r"3 steps in a row, up to step 10, .*/checkpoint-10\."):
        train(learner, latents, config, run)
    (saved,) = config.output.glob("checkpoint-*")
    unet = UNet2DConditionModel.from_pretrained(saved / "unet")
    assert all(weight.isfinite().all() for weight in unet.parameters())


def test_a_weight_that_is_no_number_stops_the_run_before_it_is_saved(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, checkpointing_steps=1, learning_rate=1e38)
    run, learner, latents = prepared(config)
    with pytest.raises(UserError, match=r"A weight is non-finite after step 1"):
        train(learner, latents, config, run)
    assert not list(config.output.glob("checkpoint-*"))


def test_validation_pictures_are_drawn_with_the_average_by_a_whole_pipeline(tiny_model, tmp_path):
    config = config_for(
        tiny_model, tmp_path, use_ema=True, validation_prompts=("x",), validation_steps=2
    )
    seen = []

    def preview(pipe, stop):
        seen.append(pipe.unet.conv_in.weight.detach().clone())
        assert not pipe.unet.training
        return [("", Image.new("RGB", (8, 8))), ("", Image.new("RGB", (8, 8)))]

    learner = trained(config, preview)
    names = sorted(path.name for path in (config.output / "validation").iterdir())
    assert names == [f"step-{step:06}-{number}.png" for step in (0, 2, 3) for number in (0, 1)]
    assert torch.equal(seen[-1], learner.ema.shadow["unet.conv_in.weight"])
    assert not torch.equal(seen[-1], learner.weights["unet.conv_in.weight"])


def test_the_learning_rate_is_a_function_of_the_step():
    config = Config(
        pretrained_model_name_or_path="-",
        train_data_dir="-",
        learning_rate=2.0,
        lr_scheduler="cosine",
        lr_warmup_steps=10,
    )
    rate = learning_rates(config, steps=110)
    assert rate(5) == 1.0 and rate(10) == 2.0
    assert rate(60) == pytest.approx(1.0)
    assert rate(110) == pytest.approx(0.0)
    assert learning_rates(replace(config, lr_scheduler="constant"), 110)(5) == 2.0
