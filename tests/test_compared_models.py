"""What is compared: a base, a model, its checkpoints, a LoRA at several strengths."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from runs import config_for
from scorers import tiny_scorer as tiny_scorer  # a fixture

import metrics
import train_text_to_image
from core.errors import UserError
from evaluation.prompts import RECALLED_PROMPTS
from sampling.model_info import read_run
from training.checkpoint_files import what_is_wrong

ROOT = Path(metrics.__file__).parent
PROMPTS = ("a red creature", "a blue one with wings", "houses", "a", "b", "a pokemon")


@pytest.fixture(scope="module")
def once_trained(tiny_model, tmp_path_factory):
    """`once_trained(method)`: the folder of a short run with checkpoints after steps 2 and 4."""

    @cache
    def train(method: str) -> Path:
        AcceleratorState._reset_state(reset_partial_state=True)
        place = tmp_path_factory.mktemp(method)
        config = config_for(
            tiny_model, place, method=method, max_train_steps=4, checkpointing_steps=2,
            use_ema=True, learning_rate=0.02, held_out=0.2,
        )  # fmt: skip
        train_text_to_image.main(config)
        return config.output

    return train


@pytest.fixture
def trained(once_trained, tmp_path):
    """`trained(method)`: a copy of that folder, which a test may change."""
    return lambda method: shutil.copytree(once_trained(method), tmp_path / "out")


@pytest.fixture
def scored(tiny_scorer, tmp_path):
    """`scored(*arguments)`: what --output holds, for six prompts of a picture each."""

    def run(*arguments) -> dict:
        (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
        output = tmp_path / "scores.json"
        metrics.main([
            "--prompts", str(tmp_path / "prompts.txt"), "--scorer", tiny_scorer, "--steps", "2",
            "--images_per_prompt", "1", "--output", str(output), "--keep_prompts", "none",
            *map(str, arguments),
        ])  # fmt: skip
        return json.loads(output.read_text())

    return run


def pictures_of(model: dict) -> list[float]:
    """The scores of all pictures."""
    return [score for prompt in model["following"]["prompts"] for score in prompt["pictures"]]


def test_checkpoints_are_compared_with_the_base_that_run_json_names(trained, scored, tmp_path):
    model = trained("full")
    page = tmp_path / "scores.html"
    content = scored("--model", model, "--checkpoints", "--report", page)
    base, second, fourth, *best, last = content["models"]
    names = [each["model"] for each in content["models"]]
    assert names[:3] == ["tiny", "out/checkpoint-2", "out/checkpoint-4"] and names[-1] == "out"
    assert all(each["model"] == "out/best" for each in best)
    assert [each["step"] for each in (base, second, fourth, last)] == [None, 2, 4, 4]
    assert pictures_of(fourth) == pictures_of(last)
    assert pictures_of(second) != pictures_of(last) != pictures_of(base)
    assert [each["model"] for each in content["comparisons"]] == names[1:]
    assert content["best"] in names
    assert f"The best is {content['best']}" in content["verdict"][-1]
    assert "keeps most" not in content["verdict"][-1]  # that was not measured
    assert "Over the checkpoints" in page.read_text() and "<svg" in page.read_text()
    # Nine of the dozen pictures were learned from; that is where style comes from.
    assert last["style"] is not None and base["memorisation"]["pictures"] == len(PROMPTS)
    # Copies are sought in pictures of its training captions, too.
    assert len(PROMPTS) < last["memorisation"]["pictures"] <= len(PROMPTS) + RECALLED_PROMPTS
    told = [each for each in content["verdict"] if "of training captions" in each]
    assert len(told) == len(content["models"]) - 1


@pytest.mark.slow
def test_a_lora_is_tried_at_several_strengths(trained, scored):
    model = trained("lora")
    content = scored("--model", model, "--lora_scale", 0, 0.5, 1)
    base, none, half, whole = content["models"]
    assert [each["model"] for each in (none, half, whole)] == ["out x 0", "out x 0.5", "out x 1"]
    assert pictures_of(none) == pytest.approx(pictures_of(base), abs=1e-3)
    assert pictures_of(half) != pictures_of(whole)
    (_, alone) = scored("--model", model)["models"]
    assert pictures_of(alone) == pictures_of(whole)
    checkpoints = scored("--model", model, "--checkpoints")["models"]
    assert pictures_of(checkpoints[2]) == pictures_of(alone)  # the average, of step 4


def test_several_models_are_compared_with_one_base(trained, scored, tiny_model):
    model = trained("full")
    content = scored("--model", model, tiny_model, "--base", tiny_model)
    assert [each["model"] for each in content["models"]] == ["tiny", "tiny", "out"]
    assert content["comparisons"][0]["mean_difference"] == 0


def test_what_is_not_there_is_one_sentence(trained, scored, tiny_model, tmp_path):
    with pytest.raises(UserError, match=r"--checkpoints: .* has no checkpoint-STEP"):
        scored("--model", tiny_model, "--checkpoints")
    with pytest.raises(UserError, match="--lora_scale is for LoRA folders"):
        scored("--model", tiny_model, "--lora_scale", 0.5)
    with pytest.raises(UserError, match="no model folder 'nowhere'"):
        scored("--model", tiny_model, "nowhere")
    model = trained("full")
    for path in model.glob("checkpoint-2/unet*/*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="checkpoint-2 does not fit"):
        scored("--model", model, "--checkpoints")
    for path in model.glob("checkpoint-2/unet*/*.safetensors"):
        path.unlink()
    with pytest.raises(UserError, match="checkpoint-2 does not fit"):
        scored("--model", model, "--checkpoints")
    (model / "run.json").write_text('{"options": 3}')
    with pytest.raises(UserError, match="options is 3"):
        scored("--model", model)


def test_a_base_that_is_gone_is_said_and_the_model_scored_all_the_same(trained, scored, capsys):
    model = trained("full")
    run = json.loads((model / "run.json").read_text())
    (model / "run.json").write_text(json.dumps(run | {"base_model": "nobody/nothing"}))
    content = scored("--model", model)
    assert len(content["models"]) == 1 and not content["comparisons"]
    assert "compared with no base" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_give_the_same_numbers_as_one(trained, scored, tiny_scorer, tmp_path):
    model = trained("full")
    alone = scored("--model", model, "--batch_size", 2, "--save_images", tmp_path / "one")
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"),
        *("--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"),
        *("--main_process_port=0", "metrics.py", "--model", str(model), "--keep_prompts=none"),
        *("--prompts", str(tmp_path / "prompts.txt"), "--scorer", tiny_scorer, "--steps=2"),
        *("--images_per_prompt=1", "--batch_size=2", "--output", str(tmp_path / "two.json")),
        *("--save_images", str(tmp_path / "two")),
    ]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "two.json").read_text()) == alone
    assert done.stdout.count("mean over 6 prompts") == 1
    drawn = [sorted(p.name for p in (tmp_path / n).rglob("*.png")) for n in ("one", "two")]
    assert drawn[0] == drawn[1] and len(drawn[0]) == 2 * len(PROMPTS) + 11  # captions of training
    shutil.rmtree(tmp_path / "two")


@pytest.mark.parametrize("method", [pytest.param("full", marks=pytest.mark.slow), "lora"])
def test_a_checkpoint_of_a_run_that_never_ended_is_a_model_of_its_own(
    trained, scored, method, tmp_path
):
    model = trained(method)
    within = scored("--model", model, "--checkpoints")["models"][1]
    shutil.copytree(model / "checkpoint-2", tmp_path / "paused" / "checkpoint-2")
    place = tmp_path / "paused" / "checkpoint-2"
    base, alone = scored("--model", place, "--write_run")["models"]
    assert (base["model"], alone["model"]) == ("tiny", "paused/checkpoint-2")
    assert alone["step"] == within["step"] == 2 and alone["run_id"] == within["run_id"]
    assert pictures_of(alone) == pictures_of(within)
    assert list(read_run(str(place))["scores"]) == ["prompts.txt"]
    assert what_is_wrong(place) is None  # it can still be resumed


def test_a_checkpoint_of_an_earlier_version_opens_beside_its_model_alone(trained, scored, tmp_path):
    model = trained("full")
    state = json.loads((model / "checkpoint-2" / "state.json").read_text())
    del state["run"]
    (model / "checkpoint-2" / "state.json").write_text(json.dumps(state))
    assert scored("--model", model / "checkpoint-2")["models"][0]["model"] == "tiny"
    shutil.move(model / "checkpoint-2", tmp_path / "checkpoint-2")
    with pytest.raises(UserError, match="does not say which model it was trained from"):
        scored("--model", tmp_path / "checkpoint-2")


def test_a_quick_look_draws_fewer_prompts_and_its_scores_are_kept_apart(trained, scored):
    model = trained("lora")
    (model / "run.json").write_text(json.dumps(read_run(str(model)) | {"scores": {}}))
    assert len(scored("--model", model, "--write_run")["models"][1]["following"]["prompts"]) == 6
    quick = scored("--model", model, "--write_run", "--max_prompts", "2")["models"][1]
    assert [each["prompt"] for each in quick["following"]["prompts"]] == [PROMPTS[0], PROMPTS[3]]
    assert list(read_run(str(model))["scores"]) == ["prompts.txt", "2 of prompts.txt"]
    with pytest.raises(UserError, match=r"--max_prompts is 0\. Give 1 or more"):
        scored("--model", model, "--max_prompts", "0")
