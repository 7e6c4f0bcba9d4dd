"""The options of diffusers' four scripts: all are taken, and our page tells where we differ."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from diffusers_options import SCRIPTS, SEVERAL
from torchvision.transforms import InterpolationMode

from training.config import Config
from training.optimizers import OPTIMIZERS
from training.option_warnings import LORA_SCRIPTS

PAGE = (Path(__file__).parent.parent / "docs" / "diffusers.md").read_text(encoding="utf-8")
KINDS = {  # what stands here for running one of the scripts
    "train_text_to_image.py": {"train_data_dir": "data"},
    "train_text_to_image_lora.py": {"train_data_dir": "data", "method": "lora"},
    "train_dreambooth.py": {"instance_data_dir": "data", "instance_prompt": "a sks dog"},
    "train_dreambooth_lora.py": {
        "instance_data_dir": "data", "instance_prompt": "a sks dog", "method": "lora",
    },
}  # fmt: skip
VALUES = {  # where the option takes not any text
    "resolution": "64", "max_train_steps": "5", "max_train_samples": "5", "validation_epochs": "5",
    "checkpoints_total_limit": "2", "mixed_precision": "bf16", "prediction_type": "epsilon",
    "prior_generation_precision": "fp32", "tokenizer_max_length": "77", "snr_gamma": "5.0",
    "input_perturbation": "0.1", "noise_offset": "0.1", "seed": "1", "report_to": "wandb",
}  # fmt: skip
NOT_THEIRS = {"caption_dropout", "save_dtype"}  # what they always do has an option here
SAME_WORD = {"prior_generation_precision"}  # None here and there, and it means something else


def command_for(script: str) -> list[str]:
    """Options that a run of this kind needs."""
    needed = KINDS[script] | {"pretrained_model_name_or_path": "model"}
    return [f"--{name}={value}" for name, value in needed.items()]


def defaults_of(script: str) -> Config:
    return Config(pretrained_model_name_or_path="model", **KINDS[script])


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_option_of_diffusers_script_is_taken(script):
    theirs = SCRIPTS[script]
    assert len(theirs) > 50
    for name, default in theirs.items():
        if name.endswith("_dir") or name in ("dataset_name", "pretrained_model_name_or_path"):
            assert hasattr(defaults_of(script), name), name
            continue
        plain = "words" if default is None else str(default)
        value = VALUES.get(name, plain)
        typed = [f"--{name}"] if default is False else [f"--{name}", value]
        typed += [value] * (name in SEVERAL)
        typed += ["--class_prompt=a dog"] * (name == "with_prior_preservation")
        config = Config.from_arguments([*command_for(script), *typed])
        kept = getattr(config, name)
        if name in SEVERAL:
            assert kept == (value, value)
        elif default is False:
            assert kept is True
        else:
            assert kept == type(kept)(value), name


def test_pictures_are_resized_in_every_way_that_torchvision_names():
    (choices,) = (
        each.metadata["choices"] for each in fields(Config)
        if each.name == "image_interpolation_mode"
    )  # fmt: skip
    assert set(choices) == {mode.name.lower() for mode in InterpolationMode}


def test_the_options_that_tell_a_script_for_lora_are_those_that_it_alone_has():
    for script, told in LORA_SCRIPTS.items():
        other = SCRIPTS[script.replace("_lora", "")]
        ours = {"rank", "lora_dropout"}  # these ask for LoRA by themselves
        assert set(told) | ours >= SCRIPTS[script].keys() - other.keys() >= set(told)


def documented_defaults() -> dict[str, tuple[str, str]]:
    """Of the table of defaults: by option, diffusers' cell and ours."""
    table = PAGE.split("| option | diffusers' default | here |")[1].split("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {
        name: (theirs, ours)
        for options, theirs, ours in rows
        for name in re.findall(r"`--(\w+)`", options)
    }


def shown(value: object) -> str:
    """A default as the table has it."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.0e}".replace("e-0", "e-") if 0 < value < 0.001 else f"{value:g}"
    return str(value)


def stands_in(value: object, cell: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(shown(value))}(?![\w.-]\w)", cell) is not None


def test_the_documentation_lists_every_default_that_is_not_diffusers_and_no_other():
    differing = set()
    for script, theirs in SCRIPTS.items():
        ours = defaults_of(script)
        differing |= {
            name for name, default in theirs.items()
            if name not in KINDS[script] and name != "pretrained_model_name_or_path"
            and getattr(ours, name) != default and (getattr(ours, name), default) != ((), None)
        }  # fmt: skip
    assert documented_defaults().keys() == differing | NOT_THEIRS | SAME_WORD


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_documented_defaults_are_the_real_ones(script):
    ours = defaults_of(script)
    for name, (their_cell, our_cell) in documented_defaults().items():
        if name in SCRIPTS[script]:
            assert stands_in(SCRIPTS[script][name], their_cell), name
        mine = ours.empty_captions if name == "caption_dropout" else getattr(ours, name)
        assert stands_in(mine, our_cell), (name, mine)
    own = {name: kind.learning_rate for name, kind in OPTIMIZERS.items() if kind.learning_rate}
    for name, rate in own.items():
        assert f"{name}: {rate:g}" in documented_defaults()["learning_rate"][1]
        config = Config(pretrained_model_name_or_path="m", train_data_dir="d", optimizer=name)
        assert config.learning_rate == rate
