"""Looks along the way: what is measured, which is the best, when it is enough."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from runs import config_for, prepared

from core.errors import UserError
from training import validation
from training.loop import train
from training.validation import fixed_losses


def looks_of(config) -> list[dict]:
    lines = [json.loads(line) for line in (config.output / "log.jsonl").open()]
    return [line for line in lines if "learning_rate" not in line]


@pytest.fixture
def measured(tiny_model, tmp_path, monkeypatch):
    """`measured(*losses, **options)` trains 6 steps with a look after each; the held-out losses
    come out as given, that of the base model first."""

    def run(*losses: float, **options):
        config = config_for(
            tiny_model, tmp_path, held_out=0.4, validation_steps=1, train_batch_size=2,
            **{"max_train_steps": 6, "checkpointing_steps": 100} | options,
        )  # fmt: skip
        given = iter(losses)
        monkeypatch.setattr(
            validation, "fixed_losses", lambda *_: dict.fromkeys(range(2), next(given))
        )
        started, learner, latents = prepared(config)
        steps, state = train(learner, latents, config, started)
        return config, steps, state

    return run


def test_the_loss_of_a_picture_does_not_depend_on_the_run(tiny_model, tmp_path):
    losses = []
    for number, options in enumerate(({}, {"seed": 5}, {"snr_gamma": 5.0, "train_batch_size": 2})):
        config = config_for(
            tiny_model,
            tmp_path,
            center_crop=True,
            output_dir=str(tmp_path / str(number)),
            **options,
        )
        run, learner, latents = prepared(config)
        losses.append(fixed_losses(learner, latents, config, run))
    assert losses[0].keys() == set(range(12))
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=1e-4)
    assert len(set(losses[0].values())) == 12


def test_the_loss_is_measured_with_the_average(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, use_ema=True)
    run, learner, latents = prepared(config)
    before = fixed_losses(learner, latents, config, run)
    learner.weights["unet.conv_out.weight"].data += 1
    assert fixed_losses(learner, latents, config, run) == before
    learner.ema.shadow["unet.conv_out.weight"] += 1
    assert fixed_losses(learner, latents, config, run) != before


def test_held_out_pictures_are_never_learned_from(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, held_out=0.4, train_batch_size=2)
    _, _, latents = prepared(config)
    learned = {name for step in range(20) for name in latents.names(step, 2)}
    measured = set(latents.held_out.images.names)
    assert measured and not learned & measured
    assert len(learned | measured) == 12


def test_the_base_model_is_measured_first_and_then_every_look(tiny_model, tmp_path):
    config = config_for(
        tiny_model, tmp_path, held_out=0.4, validation_steps=2, train_batch_size=2,
        max_train_steps=5, learning_rate=0.01,
    )  # fmt: skip
    run, learner, latents = prepared(config)
    base = fixed_losses(learner, latents.held_out, config, run)
    train(learner, latents, config, run)
    looks = looks_of(config)
    assert [look["step"] for look in looks] == [0, 2, 4, 5]
    expected = sum(base.values()) / len(base)
    assert looks[0]["held_out_loss"] == pytest.approx(expected, rel=1e-4)
    assert looks[3]["held_out_loss"] < looks[0]["held_out_loss"]


def test_looks_may_be_counted_in_epochs(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, validation_epochs=2)
    assert config.steps_between_validations(pictures=12, global_batch=4) == 6


def test_the_best_look_is_kept_as_a_model_of_its_own(measured):
    config, _, state = measured(9.0, 5.0, 3.0, 4.0, 3.0, 3.5, 8.0)
    best = {name: state["best"][name] for name in ("step", "by", "value")}
    assert best == {"step": 2, "by": "held-out loss", "value": 3.0}
    manifest = json.loads((config.output / "best" / "run.json").read_text())
    assert manifest["steps"] == 2 and manifest["best"]["value"] == 3.0
    StableDiffusionPipeline.from_pretrained(config.output / "best")
    assert [look["step"] for look in looks_of(config) if look.get("best")] == [0, 1, 2]


def test_a_look_says_since_when_none_was_better_and_the_best_what_it_is_worth(measured, capsys):
    config, _, state = measured(9.0, 5.0, 3.0, 4.0, 3.0, 3.5, 8.0)
    against = state["best"]["against_base"]
    assert (against["value"], against["other"], against["better_by"]) == (3.0, 9.0, 6.0)
    looks = looks_of(config)
    assert [look.get("no_better_since") for look in looks] == [None] * 3 + [2] * 4
    assert looks[-1]["against_best"]["better_by"] == -5.0
    said = capsys.readouterr().err
    assert "Base: held-out loss 9.\n" in said.replace("9,", "9.")
    assert "Step 2: held-out loss 3, the best so far.\n" in said
    assert "Step 6: held-out loss 8, not better since step 2.\n" in said


def test_a_run_begun_when_all_pictures_chose_goes_on_choosing_by_all(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, held_out=0.4, train_batch_size=2)
    run, learner, latents = prepared(config)
    eye = validation.Validation(learner, latents, config, run, None, None)
    old = {"step": 1, "by": "held-out loss", "value": 3.0}
    eye.state = {"looked": 1, "best": old, "unimproved": 0}
    eye._judge(2, record := {"step": 2}, [1.0, 9.0])  # 1.0 by the half that chooses now
    assert eye.state["best"] == old and record["no_better_since"] == 1
    eye._judge(3, record := {"step": 3}, [1.0, 3.0])
    assert eye.state["best"]["value"] == 2.0 and record["best"]


def test_scores_of_other_prompts_do_not_choose(tiny_model, tmp_path):
    asked = {"validation_prompts": ("x",), "validation_scorer": "a", "use_ema": True}
    config = config_for(tiny_model, tmp_path, **asked)
    run, learner, latents = prepared(config)
    eye = validation.Validation(learner, latents, config, run, lambda *_: [], lambda *_: {})
    eye._judge(0, {}, [50.0])
    other = validation.Validation(
        learner, latents, replace(config, validation_prompts=("y",)), run, eye.preview, eye.score
    )
    other.state = json.loads(json.dumps(eye.state))
    other._judge(2, {"step": 2}, [20.0])
    assert other.state["best"]["step"] == 2
    eye._judge(2, {"step": 2}, [20.0])
    assert eye.state["best"]["step"] == 0


def test_where_nothing_beats_the_base_model_there_is_no_best(measured):
    config, _, state = measured(1.0, 5.0, 3.0, 4.0, 3.0, 3.5, 8.0)
    assert state["best"]["step"] == 0
    assert not (config.output / "best").exists()


def test_a_run_stops_early_when_patience_has_run_out(measured):
    _, steps, state = measured(9.0, 5.0, 6.0, 5.0, 1.0, 1.0, 1.0, early_stopping_patience=2)
    assert steps == 3
    assert state["best"]["step"] == 1


def test_patience_goes_on_where_a_resumed_run_was(measured):
    options = {"early_stopping_patience": 3, "checkpointing_steps": 2}
    config, steps, _ = measured(9.0, 5.0, 6.0, 6.0, max_train_steps=3, **options)
    assert steps == 3
    more = {"max_train_steps": 6, "resume_from_checkpoint": "checkpoint-2"}
    # The look after step 2 was not yet in the checkpoint that step saved: it is taken again.
    _, steps, state = measured(6.0, 6.0, 6.0, 1.0, **(options | more))
    assert steps == 4
    assert state["best"]["step"] == 1 and state["best"]["value"] == 5.0
    assert (config.output / "best" / "model_index.json").is_file()


def test_patience_without_a_measure_is_refused(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, early_stopping_patience=1)
    run, learner, latents = prepared(config)
    with pytest.raises(UserError, match="--early_stopping_patience needs a measure"):
        train(learner, latents, config, run)


def test_without_held_out_pictures_the_score_decides(tiny_model, tmp_path):
    config = config_for(
        tiny_model, tmp_path, validation_prompts=("x",), validation_steps=1, use_ema=True
    )
    run, learner, latents = prepared(config)
    scores = iter([20.0, 25.0, 24.0, 26.0])

    def score(*_) -> dict:
        return {"clip_score": (value := next(scores)), "clip_scores": [value]}

    drawn = [("", Image.new("RGB", (8, 8)))]
    _, state = train(learner, latents, config, run, lambda *_: drawn, score)
    assert state["best"]["step"] == 3 and state["best"]["by"] == "CLIP score"
    assert state["best"]["value"] == 26.0
    assert [look["clip_score"] for look in looks_of(config)] == [20.0, 25.0, 24.0, 26.0]


def test_a_look_that_is_broken_off_leaves_no_record(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, held_out=0.4, train_batch_size=2)
    run, learner, latents = prepared(config)
    eye = validation.Validation(learner, latents, config, run, None, None)
    eye.validate(0, stop=lambda: True)
    assert looks_of(config) == [] and eye.due(0, 10)


def test_looking_changes_nothing_in_what_is_learned(tiny_model, tmp_path):
    plain = config_for(tiny_model, tmp_path, max_train_steps=4)
    watched = replace(
        plain, output_dir=str(tmp_path / "watched"), validation_prompts=("x",), validation_steps=1
    )
    weights = []
    for config, preview in ((plain, None), (watched, lambda *_: [("", Image.new("RGB", (8, 8)))])):
        run, learner, latents = prepared(config)
        train(learner, latents, config, run, preview)
        weights.append(learner.weights)
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
