"""Presets: a length of time becomes steps, whatever machine, model and number of pictures."""

import json

import pytest

from core.errors import UserError
from training.config import Config
from webapp.runs.presets import (
    MIN_STEPS,
    QUICK,
    REAL,
    SECONDS,
    STYLE,
    SUBJECT,
    WHOLE,
    Wish,
    is_small,
    length_of,
    merged,
    options_of,
    pictures_of,
)
from webapp.runs.state import option_of


@pytest.fixture
def small(tmp_path) -> str:
    """A model folder whose UNet is small."""
    (tmp_path / "base" / "unet").mkdir(parents=True)
    config = {"block_out_channels": [96, 192]}
    (tmp_path / "base" / "unet" / "config.json").write_text(json.dumps(config))
    return str(tmp_path / "base")


def wish(base: str, **values) -> Wish:
    usual = {"pictures": "data", "count": 24, "subject": "sks dog", "class_words": "dog"}
    return Wish(base, **usual | values)


@pytest.mark.parametrize("kind", [STYLE, WHOLE, SUBJECT])
@pytest.mark.parametrize("preset", SECONDS)
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("is_tiny", [False, True])
def test_the_training_script_takes_the_options_of_every_preset(small, kind, preset, keep, is_tiny):
    base = small if is_tiny else "someone/stable-diffusion"
    words = options_of(wish(base, kind=kind, preset=preset, keep=keep, prompts=("a cat", "b")))
    config = Config.from_arguments([*words, "--max_train_steps", "10"])
    assert config.method == ("lora" if kind == STYLE else "full") and config.use_ema
    assert config.validation_prompts == ("a cat", "b")
    assert bool(config.instance_prompt) == (kind == SUBJECT)
    assert config.with_prior_preservation == (kind == SUBJECT or keep)
    # So that a run can go on for as long as one likes, with the same bits.
    assert config.lr_scheduler == "constant"


@pytest.mark.parametrize("count", [1, 3, 24, 2000])
def test_a_step_never_asks_for_more_pictures_than_there_are(small, count):
    for base in (small, "someone/stable-diffusion"):
        config = Config.from_arguments(options_of(wish(base, count=count)))
        assert config.train_batch_size * config.gradient_accumulation_steps <= count


def plan(step: float, steps: int = 300, rows: int = 8, count: int = 24, **seconds) -> dict:
    usual = {"load": 1.0, "encode": 2.0, "step": step, "picture": 0.5}
    return {"steps": steps, "epochs": steps * rows / count, "seconds": usual | seconds}


def steps_of(words: list[str]) -> int:
    return int(option_of(words, "--max_train_steps"))


@pytest.mark.parametrize("step", [0.05, 0.3, 0.7, 2.0])
@pytest.mark.parametrize("preset", SECONDS)
def test_a_preset_takes_no_longer_than_its_name_says(small, step, preset):
    asked = wish(small, preset=preset, prompts=("a", "b"))
    words = length_of(asked, plan(step))
    seconds = steps_of(words) * step + pictures_of(asked) * 0.5
    assert seconds <= SECONDS[preset] and steps_of(words) >= MIN_STEPS


def test_few_pictures_are_not_learned_by_heart_for_hours(small):
    words = length_of(wish(small, preset=REAL), plan(0.3))
    assert steps_of(words) * 8 / 24 <= 201  # passes over each picture


def test_a_machine_too_slow_for_a_preset_still_learns_a_little(small):
    assert steps_of(length_of(wish(small, preset=QUICK), plan(60.0))) == MIN_STEPS


def test_the_last_step_is_a_checkpoint_so_that_the_run_can_go_on(small):
    for step in (0.11, 0.37, 0.73):
        words = length_of(wish(small), plan(step))
        assert steps_of(words) % int(option_of(words, "--checkpointing_steps")) == 0
        assert option_of(words, "--checkpointing_steps") == option_of(words, "--validation_steps")


def test_options_that_are_typed_win_over_those_of_a_preset():
    words = ["--a", "1", "--b", "x", "y", "--c"]
    assert merged(words, ["--b", "z"]) == ["--a", "1", "--c", "--b", "z"]
    assert merged(words, ["--a=2"]) == ["--b", "x", "y", "--c", "--a=2"]
    assert merged(words, []) == words


@pytest.mark.parametrize(
    ("values", "sentence"),
    [({"kind": SUBJECT, "subject": " "}, "needs two names"), ({"kind": "magic"}, "no such kind"),
     ({"preset": "never"}, "no such kind"), ({"prompts": ("a",) * 7}, "7 prompts")],
)  # fmt: skip
def test_what_nothing_can_be_made_of_is_one_sentence(small, values, sentence):
    with pytest.raises(UserError, match=sentence):
        options_of(wish(small, **values))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"block_out_channels": "x"}', "\0"])
def test_a_model_whose_size_is_unknown_is_taken_for_a_full_size_one(tmp_path, content):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(content)
    assert not is_small(str(tmp_path)) and not is_small("hub/id") and not is_small("nowhere")
