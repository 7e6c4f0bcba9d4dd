"""Checkpoints: whole or not there, refused when of another run, the newest found and kept."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import tiny_pipeline
from diffusers import UNet2DConditionModel
from runs import config_for, prepared
from transformers import CLIPTextModel

from core.errors import UserError
from core.files import vanish
from training import checkpoint_files
from training.checkpoint_files import clear_leftovers, find, prune
from training.checkpoints import Checkpoints
from training.loop import deciding_facts, train
from training.objective import Objective
from training.optimizer_step import OptimizerStepper


@pytest.fixture
def stopped(tiny_model, tmp_path):
    """A run of three steps with a checkpoint after each: its config, ready to resume."""
    config = config_for(tiny_model, tmp_path, use_ema=True, checkpointing_steps=1)
    run, learner, latents = prepared(config)
    train(learner, latents, config, run)
    return replace(config, resume_from_checkpoint="latest", max_train_steps=4)


def resumed(config) -> tuple[int, object]:
    """The step that a run goes on from, and its learner."""
    run, learner, latents = prepared(config)
    stepper = OptimizerStepper(learner.weights, config, run)
    objective = Objective(learner.pipe.scheduler, config, run.device)
    same = deciding_facts(latents, objective, config, run, config.max_train_steps)
    return Checkpoints(learner, stepper, config, run, same, latents).resume().get(
        "step", 0
    ), learner


def test_nothing_in_a_checkpoint_is_a_pickle(stopped):
    files = {path.suffix for path in stopped.output.glob("checkpoint-*/**/*") if path.is_file()}
    assert files == {".safetensors", ".json"}


def test_a_checkpoint_holds_a_unet_and_its_average_that_open_by_themselves(stopped):
    _, learner = resumed(stopped)
    for folder, weights in (("unet", learner.weights), ("unet_ema", learner.ema.shadow)):
        unet = UNet2DConditionModel.from_pretrained(stopped.output / "checkpoint-3" / folder)
        for name, weight in unet.named_parameters():
            assert torch.equal(weight, weights[f"unet.{name}"])


def test_a_learning_text_encoder_in_a_checkpoint_opens_by_itself(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, train_text_encoder=True, checkpointing_steps=3)
    run, learner, latents = prepared(config)
    train(learner, latents, config, run)
    encoder = CLIPTextModel.from_pretrained(config.output / "checkpoint-3" / "text_encoder")
    for name, weight in encoder.named_parameters():
        assert torch.equal(weight, learner.weights[f"text_encoder.{name}"])


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("seed", 7, "--seed was 0, now 7"),
        ("learning_rate", 1e-4, r"--learning_rate was 0.001, now 0.0001"),
        ("train_batch_size", 2, r"the pictures per step .* was 4, now 2"),
        ("snr_gamma", 5.0, "--snr_gamma was None, now 5.0"),
        ("use_ema", False, "--use_ema was True, now False"),
        ("mixed_precision", "bf16", "--mixed_precision was no, now bf16"),
        ("resolution", 64, r"--resolution was \[\[32, 32\]\], now \[\[64, 64\]\]"),
        ("max_train_samples", 8, r"the data has changed \(12 pictures then, 8 now\)"),
        ("center_crop", True, "--center_crop was False, now True"),
        ("torch_compile", True, "--torch_compile was False, now True"),
    ],
)
def test_an_option_that_would_have_altered_the_result_is_refused_by_name(
    stopped, option, value, said
):
    with pytest.raises(UserError, match=said):
        resumed(replace(stopped, **{option: value}))


def test_all_that_has_changed_is_named_at_once(stopped):
    with pytest.raises(UserError, match=r"--learning_rate was .*; --seed was"):
        resumed(replace(stopped, seed=7, learning_rate=1.0))


def test_another_base_model_is_refused_and_the_same_one_elsewhere_is_not(stopped, tmp_path):
    shutil.copytree(stopped.pretrained_model_name_or_path, tmp_path / "moved")
    assert resumed(replace(stopped, pretrained_model_name_or_path=str(tmp_path / "moved")))[0] == 3
    tiny_pipeline(seed=1).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="the base model has other weights"):
        resumed(replace(stopped, pretrained_model_name_or_path=str(tmp_path / "other")))


@pytest.mark.parametrize(
    "change",
    [
        {"max_train_steps": 100},
        {"num_train_epochs": 3.0},
        {"checkpointing_steps": 2, "checkpoints_total_limit": 1},
        {"validation_prompts": ("a creature",), "validation_steps": 2},
        {"train_batch_size": 2, "gradient_accumulation_steps": 2},  # as many pictures per step
        {"gradient_checkpointing": True},
        {"save_dtype": "fp16", "log_every": 1, "dataloader_num_workers": 0},
    ],
)
def test_what_concerns_the_rest_of_the_run_may_change(stopped, change):
    assert resumed(replace(stopped, **change))[0] == 3


def test_the_end_of_a_run_may_move_unless_its_learning_rate_depends_on_it(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, lr_scheduler="cosine", checkpointing_steps=1)
    run, learner, latents = prepared(config)
    train(learner, latents, config, run)
    with pytest.raises(UserError, match="--max_train_steps under --lr_scheduler cosine was 3, now"):
        resumed(replace(config, resume_from_checkpoint="latest", max_train_steps=9))


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "one bit flipped": lambda path: path.write_bytes(flipped(path.read_bytes())),
}


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


@pytest.mark.parametrize("error", [KeyError, TypeError, AttributeError, ValueError])
def test_an_error_of_ours_is_not_said_to_be_damage(stopped, monkeypatch, error):
    def ours(*_):
        raise error("ours")

    monkeypatch.setattr(checkpoint_files, "_hashes", ours)
    with pytest.raises(error, match="ours"):
        checkpoint_files.what_is_wrong(stopped.output / "checkpoint-3")


@pytest.mark.parametrize(
    "manifest", ["{", "[]", '["a"]', "7", '{"state.json": 7}', '{"state.json": {"bytes": "x"}}']
)
def test_a_manifest_that_is_none_is_damage(stopped, manifest):
    (stopped.output / "checkpoint-3" / "manifest.json").write_text(manifest)
    reason = checkpoint_files.what_is_wrong(stopped.output / "checkpoint-3")
    assert reason == "manifest.json is not readable"


def test_a_manifest_of_no_files_is_damage(stopped):
    (stopped.output / "checkpoint-3" / "manifest.json").write_text("{}")
    reason = checkpoint_files.what_is_wrong(stopped.output / "checkpoint-3")
    assert reason == "manifest.json is empty"


def test_every_damage_to_every_file_is_found_and_the_one_before_is_used(stopped, capsys):
    newest, kept = stopped.output / "checkpoint-3", stopped.output / "kept"
    files = [path.relative_to(newest) for path in newest.rglob("*") if path.is_file()]
    assert {"manifest.json", "state.json", "optimizer.safetensors"} <= {str(file) for file in files}
    newest.rename(kept)
    for file in files:
        for damage, make in DAMAGES.items():
            shutil.copytree(kept, newest)
            make(newest / file)
            found = find(stopped.output, "latest")
            assert found.name == "checkpoint-2", f"{file}: {damage}"
            assert f"{newest} is damaged" in capsys.readouterr().out
            with pytest.raises(UserError, match=r"the newest whole one is checkpoint-2"):
                find(stopped.output, "checkpoint-3")
            shutil.rmtree(newest)


def test_where_no_checkpoint_is_whole_nothing_starts_anew(stopped):
    for folder in stopped.output.glob("checkpoint-*"):
        (folder / "optimizer.safetensors").unlink()
    for wanted in ("latest", "auto"):
        with pytest.raises(UserError, match=r"No checkpoint in .* is whole"):
            find(stopped.output, wanted)


def test_a_checkpoint_that_is_not_there_is_an_error_and_never_a_new_start(tmp_path):
    with pytest.raises(UserError, match=r"There is no checkpoint in .*, or use 'auto'"):
        find(tmp_path, "latest")
    with pytest.raises(UserError, match="There is no checkpoint checkpoint-3"):
        find(tmp_path, "checkpoint-3")
    assert find(tmp_path, "auto") is None


def whole(folder: Path) -> Path:
    """A small checkpoint that is whole."""
    checkpoint_files.save(folder, {"weights.safetensors": {"w": torch.zeros(2)}}, {"step": 0})
    return folder


def test_the_latest_is_the_one_with_the_most_steps(tmp_path):
    for name in ("checkpoint-9", "checkpoint-10"):
        whole(tmp_path / name)
    for name in ("checkpoint-best", ".checkpoint-11.77"):
        (tmp_path / name).mkdir()
    assert find(tmp_path, "latest") == find(tmp_path, "auto") == tmp_path / "checkpoint-10"
    assert find(tmp_path, "checkpoint-9") == tmp_path / "checkpoint-9"
    assert find(tmp_path, str(tmp_path / "checkpoint-9")) == tmp_path / "checkpoint-9"


def test_a_missing_checkpoint_names_those_there_are(tmp_path):
    for step in (20, 3):
        whole(tmp_path / f"checkpoint-{step}")
    with pytest.raises(
        UserError, match=r"no checkpoint checkpoint-4; .*: checkpoint-3, checkpoint-20"
    ):
        find(tmp_path, "checkpoint-4")


def test_a_new_run_does_not_mix_with_the_checkpoints_of_an_old_one(tmp_path):
    assert find(tmp_path, None) is None
    (tmp_path / "checkpoint-3").mkdir()
    with pytest.raises(UserError, match="--resume_from_checkpoint latest, or delete"):
        find(tmp_path, None)


def test_the_newest_checkpoints_are_kept(tmp_path):
    for step in (5, 10, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    prune(tmp_path, None)
    assert len(list(tmp_path.iterdir())) == 3
    prune(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-10", "checkpoint-100"}


def test_what_a_killed_run_left_is_cleared_away_and_what_gave_way_comes_back(tmp_path):
    gone = (".new.7/unet", ".checkpoint-5.7", ".checkpoint-2.gone", "checkpoint-rehearsal",
            "best/.new.7/unet", ".report.html.7")  # fmt: skip
    for name in gone:
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".examples.7.former").mkdir()  # killed between two renames
    (tmp_path / "best" / ".new" / "unet").mkdir(parents=True)  # killed when it was whole
    clear_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"best", "examples"}
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["unet"]


def test_no_half_of_what_is_deleted_is_seen(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    (folder / "state.json").touch()

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        vanish(folder)
    assert not folder.exists()
    monkeypatch.undo()
    clear_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []
