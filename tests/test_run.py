"""A started run: its folder, its log, and what it says when memory runs out."""

import json
import sys
from types import ModuleType

import pytest
import torch
from accelerate.state import AcceleratorState
from runs import config_for, fresh_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train_text_to_image
from core import precision
from core.errors import UserError


def test_out_of_memory_names_the_options_to_change(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: True)
    run = fresh_run(config_for(tiny_model, tmp_path, use_ema=True))
    with pytest.raises(UserError) as caught, run.memory_advice():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    sentence = str(caught.value)
    assert "\n" not in sentence and "ran out of memory" in sentence
    for option in ("--mixed_precision bf16", "--train_batch_size 1 --gradient_accumulation_steps 4",
                   "--gradient_checkpointing", "--use_8bit_adam", "--offload_ema",
                   "--method lora"):  # fmt: skip
        assert option in sentence


def test_without_bf16_units_no_bf16_is_advised(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: False)
    run = fresh_run(config_for(tiny_model, tmp_path))
    with pytest.raises(UserError, match="ran out of memory") as caught, run.memory_advice():
        raise torch.OutOfMemoryError
    assert "--mixed_precision" not in str(caught.value)


@pytest.mark.parametrize(("units", "chosen"), [(True, "bf16"), (False, "no")])
def test_auto_is_the_precision_that_is_fast_on_this_processor(
    tiny_model, tmp_path, monkeypatch, units, chosen
):
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: units)
    run = fresh_run(config_for(tiny_model, tmp_path, mixed_precision="auto"))
    assert run.config.mixed_precision == run.accelerator.mixed_precision == chosen


@pytest.mark.parametrize("units", [True, False])
def test_bf16_on_a_processor_without_it_warns_of_the_cost_before_training(
    tiny_model, tmp_path, monkeypatch, capsys, units
):
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: units)
    config = config_for(tiny_model, tmp_path, mixed_precision="bf16", dry_run=True)
    AcceleratorState._reset_state(reset_partial_state=True)
    train_text_to_image.main(config)
    told = [line for line in capsys.readouterr().err.splitlines() if "no bf16 units" in line]
    assert len(told) == (not units)
    assert all(line.startswith("warning: ") and "--mixed_precision no" in line for line in told)


def test_options_that_are_on_already_are_not_advised(tiny_model, tmp_path, monkeypatch):
    for name in ("torchao", "torchao.optim"):  # as if it were there
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    options = {"mixed_precision": "bf16", "train_batch_size": 1, "gradient_checkpointing": True,
               "method": "lora", "use_8bit_adam": True}  # fmt: skip
    run = fresh_run(config_for(tiny_model, tmp_path, **options))
    with pytest.raises(UserError) as caught, run.memory_advice():
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:116] . DefaultCPUAllocator: can't "
                           "allocate memory: you tried to allocate 99 bytes")  # fmt: skip
    assert str(caught.value).count("--") == 2  # --resolution, --dry_run


def test_other_errors_are_left_as_they_are(tiny_model, tmp_path):
    run = fresh_run(config_for(tiny_model, tmp_path))
    with pytest.raises(RuntimeError, match="shapes differ"), run.memory_advice():
        raise RuntimeError("shapes differ")


def test_tensorboard_shows_the_course_of_a_run(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, report_to="tensorboard", log_every=1, held_out=0.2)
    train_text_to_image.main(config)
    events = config.output / config.logging_dir / config.tracker_project_name
    read = EventAccumulator(str(events)).Reload()
    logged = [json.loads(line) for line in (config.output / "log.jsonl").open()]
    for name in ("loss", "held_out_loss", "learning_rate"):
        shown = {event.step: event.value for event in read.Scalars(name)}
        ours = {line["step"]: line[name] for line in logged if name in line}
        assert len(ours) >= 2 and shown == pytest.approx(ours)


def test_a_tracker_that_is_not_installed_is_named_at_the_start(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not there
    with pytest.raises(UserError, match="pip install wandb"):
        fresh_run(config_for(tiny_model, tmp_path, report_to="wandb"))


def test_an_unknown_tracker_is_refused(tiny_model, tmp_path):
    with pytest.raises(UserError, match="--report_to paper is no tracker; choose one of"):
        fresh_run(config_for(tiny_model, tmp_path, report_to="paper"))


def test_a_line_that_a_kill_broke_off_spoils_only_itself(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path)
    config.output.mkdir()
    (config.output / "log.jsonl").write_text('{"step": 1}\n{"ste')
    fresh_run(config).log({"step": 2})
    lines = (config.output / "log.jsonl").read_text().splitlines()
    assert lines[:2] == ['{"step": 1}', '{"ste']
    assert json.loads(lines[2])["step"] == 2


def test_a_dry_run_writes_nothing(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, dry_run=True)
    fresh_run(config)
    train_text_to_image.main(config)
    assert not config.output.exists()
