"""Options: the command line is as diffusers has it, and nonsense is refused by name."""

import dataclasses

import pytest

from core.errors import UserError
from training.config import Config

EXAMPLE = """
    --pretrained_model_name_or_path=CompVis/stable-diffusion-v1-4 --dataset_name=a/b --use_ema
    --resolution=512 --center_crop --random_flip --train_batch_size=1 --max_grad_norm=1
    --gradient_accumulation_steps=4 --gradient_checkpointing --mixed_precision=fp16
    --max_train_steps=15000 --learning_rate=1e-05 --lr_scheduler=constant --lr_warmup_steps=0
    --output_dir=sd-pokemon-model
"""
NEEDED = {"pretrained_model_name_or_path": "model", "train_data_dir": "data"}


def test_the_command_of_the_diffusers_example_is_understood():
    config = Config.from_arguments(EXAMPLE.split())
    assert config.dataset_name == "a/b"
    assert config.resolution == 512
    assert config.learning_rate == 1e-5
    assert config.gradient_checkpointing and config.use_ema and config.random_flip


def test_several_validation_prompts_are_kept_in_order():
    arguments = ["--validation_prompts", "a red one", "a blue one"]
    needed = [word for name, value in NEEDED.items() for word in (f"--{name}", value)]
    assert Config.from_arguments(needed + arguments).validation_prompts == (
        "a red one",
        "a blue one",
    )


def test_an_unset_option_is_the_same_from_the_command_line_and_in_code():
    needed = [word for name, value in NEEDED.items() for word in (f"--{name}", value)]
    assert Config.from_arguments(needed) == Config(**NEEDED)


def test_every_option_explains_itself(capsys):
    with pytest.raises(SystemExit):
        Config.from_arguments(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(Config):
        assert f"--{field.name}" in shown
        assert field.metadata["help"] in shown


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("train_batch_size", 0),
        ("max_train_steps", -1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("ema_decay", 1.0),
        ("caption_dropout", 1.5),
        ("seed", 2**32),
        ("resolution", 500),
        ("mixed_precision", "fp8"),
        ("lr_scheduler", "zigzag"),
        ("save_dtype", "int8"),
        ("validation_prompts", ("fine", " ")),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_its_name(option, value):
    with pytest.raises(UserError, match=f"--{option}"):
        Config(**NEEDED, **{option: value})


@pytest.mark.parametrize("data", [{}, {"train_data_dir": "a", "dataset_name": "b"}])
def test_the_data_is_named_exactly_once(data):
    with pytest.raises(UserError, match="either --train_data_dir or --dataset_name"):
        Config(pretrained_model_name_or_path="model", **data)


def test_an_unknown_option_ends_with_code_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        Config.from_arguments(["--learning_speed", "1"])
    assert stopped.value.code == 2
    assert "--learning_speed" in capsys.readouterr().err


def test_epochs_are_counted_in_steps_of_the_global_batch():
    assert Config(**NEEDED, num_train_epochs=3).total_steps(pictures=10, global_batch=4) == 8
    assert Config(**NEEDED, max_train_steps=5).total_steps(pictures=10, global_batch=4) == 5


def test_options_cannot_change_during_a_run():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config(**NEEDED).seed = 1


@pytest.mark.parametrize("report_to", ["wandb", "all"])
def test_a_token_is_not_given_to_a_tracker_that_keeps_the_command(report_to):
    with pytest.raises(UserError, match="leave out --hub_token") as refused:
        Config(**NEEDED, report_to=report_to, hub_token="hf_secret")
    assert "hf_secret" not in str(refused.value)
    Config(**NEEDED, report_to="tensorboard", hub_token="hf_secret")
    Config(**NEEDED, report_to=report_to)
