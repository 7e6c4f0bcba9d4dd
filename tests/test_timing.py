"""A plan with times: measured on steps that leave nothing behind."""

import json
from dataclasses import replace

import pytest
from runs import config_for, fresh_run

import train_text_to_image
from core.errors import UserError
from core.formatting import duration
from training.timing import drawn_pictures


def planned(config, tmp_path) -> dict:
    fresh_run(config).close()
    train_text_to_image.main(replace(config, plan_file=str(tmp_path / "plan.json")))
    return json.loads((tmp_path / "plan.json").read_text())


def test_a_timed_plan_says_how_long_each_part_takes(tiny_model, tmp_path, capsys):
    options = {"dry_run": True, "timed_steps": 2, "max_train_steps": 50}
    found = planned(config_for(tiny_model, tmp_path, **options), tmp_path)
    seconds = found["seconds"]
    assert found["steps"] == 50 and all(each >= 0 for each in seconds.values())
    assert seconds["steps"] == pytest.approx(50 * seconds["step"])
    parts = seconds["load"] + seconds["encode"] + seconds["steps"] + seconds["draw"]
    assert seconds["total"] == pytest.approx(parts)
    assert "s a step, measured" in capsys.readouterr().err
    assert not (tmp_path / "out").exists(), "a plan writes nothing into the model's folder"


def test_a_plan_without_times_has_the_memory_and_loads_nothing(tiny_model, tmp_path):
    found = planned(config_for(tiny_model, tmp_path, dry_run=True), tmp_path)
    assert found["seconds"] is None
    assert 0 < found["memory"]["peak"] < found["memory"]["free"] and found["disk"]["model"] > 0


def test_what_is_learned_along_takes_its_time_too(tiny_model, tmp_path):
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    options = {"dry_run": True, "timed_steps": 1, "with_prior_preservation": True,
               "prior_prompts": str(tmp_path / "prompts.txt"), "num_class_images": 5}  # fmt: skip
    config = config_for(tiny_model, tmp_path, validation_prompts=("a", "b"), **options)
    # Before the run, after 2 and after 3 of 3 steps.
    assert drawn_pictures(replace(config, validation_steps=2), 12, 4, 3) == 3 * 2 + 5
    assert planned(config, tmp_path)["seconds"]["draw"] > 0


@pytest.mark.parametrize("options", [{"timed_steps": 3}, {"plan_file": "plan.json"}])
def test_a_plan_needs_a_dry_run(tiny_model, tmp_path, options):
    with pytest.raises(UserError, match="add --dry_run"):
        config_for(tiny_model, tmp_path, **options)


def test_a_plan_that_cannot_be_written_is_one_sentence(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, dry_run=True, plan_file=str(tmp_path / "no" / "a"))
    with pytest.raises(UserError, match="cannot be written"):
        train_text_to_image.main(config)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (89, "89 s"), (120, "2 min"), (5000, "83 min"), (9000, "2.5 h"),
     (40 * 3600, "40 h"), (10 * 86400, "10 days")],
)  # fmt: skip
def test_a_duration_is_told_as_people_tell_it(seconds, words):
    assert duration(seconds) == words
