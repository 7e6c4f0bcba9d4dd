"""What nobody gave: it follows from the rest of the options, or from how the run began."""

from dataclasses import replace

import pytest
from runs import config_for, fresh_run, prepared
from test_loop import assert_equal, trained

from core.errors import UserError
from training.config import Config
from training.loop import train

NEEDED = {"pretrained_model_name_or_path": "model", "train_data_dir": "data"}
SUBJECT = {"train_data_dir": None, "instance_data_dir": "dog", "instance_prompt": "a sks dog"}


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 16},
        {"rank": 4},
        {"lora_alpha": 8.0},
        {"lora_dropout": 0.1},
        {"lora_target_modules": ("to_q",)},
        {"merge_lora": True},
    ],
)
def test_who_gives_an_option_of_lora_means_lora(options):
    assert Config(**NEEDED, **options).method == "lora"
    assert Config(**NEEDED, method="full", **options).method == "full"


@pytest.mark.parametrize(
    ("options", "rate"),
    [
        ({}, 1e-5),
        ({"method": "lora"}, 1e-4),
        ({"rank": 16}, 1e-4),
        (SUBJECT, 5e-6),
        (SUBJECT | {"method": "lora"}, 1e-4),
        ({"optimizer": "muon"}, 0.02),
        ({"optimizer": "prodigy"}, 1.0),
        ({"optimizer": "prodigy", "method": "lora"}, 1.0),
        ({"method": "lora", "learning_rate": 3e-5}, 3e-5),
    ],
)
def test_the_learning_rate_suits_what_learns(options, rate):
    assert Config(**NEEDED | options).learning_rate == rate


def test_what_a_run_is_compared_by_lacks_options_that_came_later_and_are_not_used():
    lasting = Config(**NEEDED).lasting
    assert lasting["method"] == "full" and lasting["rank"] == 4  # as in checkpoints of old
    later = {"lora_dropout", "tokenizer_name", "tokenizer_max_length",
             "text_encoder_use_attention_mask", "pre_compute_text_embeddings"}  # fmt: skip
    assert not later & lasting.keys()
    assert Config(**NEEDED, lora_dropout=0.1).lasting["lora_dropout"] == 0.1


def test_a_run_goes_on_with_what_it_began_with_where_nobody_says_otherwise(
    tiny_model, tmp_path, capsys
):
    """As where the default was another when it began."""
    began = config_for(
        tiny_model, tmp_path, method="lora", rank=2, learning_rate=1e-3, checkpointing_steps=2
    )
    unbroken = trained(began)
    resumed = replace(began, learning_rate=None, method=None, resume_from_checkpoint="latest")
    assert resumed.learning_rate == 1e-4
    run = fresh_run(resumed)
    assert run.config.learning_rate == 1e-3
    assert any("--learning_rate is 0.001, as when this run began" in note for note in run.notes)
    run, learner, latents = prepared(run.config)
    train(learner, latents, run.config, run)
    assert_equal(learner, unbroken)


def test_a_run_of_the_whole_unet_with_a_rank_goes_on_as_one(tiny_model, tmp_path):
    began = config_for(tiny_model, tmp_path, method="full", rank=8, checkpointing_steps=2)
    trained(began)
    run = fresh_run(replace(began, method=None, resume_from_checkpoint="latest"))
    assert run.config.method == "full"


def test_another_rate_that_is_given_is_still_refused(tiny_model, tmp_path):
    began = config_for(tiny_model, tmp_path, checkpointing_steps=2)
    trained(began)
    with pytest.raises(UserError, match=r"--learning_rate was 0\.001, now 0\.01"):
        trained(replace(began, learning_rate=0.01, resume_from_checkpoint="latest"))
