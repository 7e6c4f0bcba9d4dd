"""Checkpoints: whole or not there, refused when of another run, the newest found and kept."""

import pytest
import torch
from runs import config_for, prepared

from errors import UserError
from training import checkpoint
from training.checkpoint import find, prune, replaced, replaced_files


@pytest.fixture
def stopped(tiny_model, tmp_path):
    """A learner and an optimizer after one step, saved as `tmp_path`/checkpoint-1."""
    _, learner, _ = prepared(config_for(tiny_model, tmp_path, use_ema=True))
    optimizer = torch.optim.AdamW(learner.weights.values(), lr=0.1, fused=True)
    for weight in learner.weights.values():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    checkpoint.save(tmp_path / "checkpoint-1", learner, optimizer, {"step": 1, "seed": 0})
    return learner, optimizer


def test_a_checkpoint_gives_back_all_that_learning_goes_on_from(stopped, tiny_model, tmp_path):
    learner, optimizer = stopped
    _, other, _ = prepared(config_for(tiny_model, tmp_path, use_ema=True))
    fresh = torch.optim.AdamW(other.weights.values(), lr=0.2, fused=True)
    state = checkpoint.load(tmp_path / "checkpoint-1", other, fresh, {"seed": 0})
    assert state == {"step": 1, "seed": 0}
    for name, weight in learner.weights.items():
        assert torch.equal(other.weights[name], weight)
        assert torch.equal(other.ema.shadow[name], learner.ema.shadow[name])
        for key, value in optimizer.state[weight].items():
            assert torch.equal(fresh.state[other.weights[name]][key], value)
    assert fresh.param_groups[0]["lr"] == 0.2  # options are those of today


def test_nothing_in_a_checkpoint_is_a_pickle(stopped, tmp_path):
    files = {path.suffix for path in (tmp_path / "checkpoint-1").iterdir()}
    assert files == {".safetensors", ".json"}


def test_a_checkpoint_of_another_run_is_refused(stopped, tmp_path):
    with pytest.raises(UserError, match="was made with seed 0, this run has 7"):
        checkpoint.load(tmp_path / "checkpoint-1", *stopped, {"seed": 7})


def test_a_checkpoint_of_other_weights_is_refused(stopped, tiny_model, tmp_path):
    options = {"use_ema": True, "train_text_encoder": True}
    _, other, _ = prepared(config_for(tiny_model, tmp_path, **options))
    optimizer = torch.optim.AdamW(other.weights.values())
    with pytest.raises(UserError, match="other weights learned"):
        checkpoint.load(tmp_path / "checkpoint-1", other, optimizer, {})


@pytest.mark.parametrize("name", ["weights", "ema", "optimizer"])
def test_a_damaged_checkpoint_is_refused(stopped, tmp_path, name):
    file = tmp_path / "checkpoint-1" / f"{name}.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match="is not a whole checkpoint"):
        checkpoint.load(tmp_path / "checkpoint-1", *stopped, {})
    file.unlink()
    with pytest.raises(UserError, match="is not a whole checkpoint"):
        checkpoint.load(tmp_path / "checkpoint-1", *stopped, {})


def test_the_latest_is_the_one_with_the_most_steps(tmp_path):
    assert find(tmp_path, "latest") is None
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-best", ".checkpoint-11.77"):
        (tmp_path / name).mkdir()
    assert find(tmp_path, "latest") == tmp_path / "checkpoint-10"
    assert find(tmp_path, "checkpoint-9") == tmp_path / "checkpoint-9"
    assert find(tmp_path, str(tmp_path / "checkpoint-9")) == tmp_path / "checkpoint-9"


def test_a_missing_checkpoint_names_those_there_are(tmp_path):
    for step in (20, 3):
        (tmp_path / f"checkpoint-{step}").mkdir()
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


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "kept").write_text("old")
    with pytest.raises(RuntimeError), replaced(tmp_path / "kept") as staged:
        staged.write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "old"


def test_a_full_disk_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="No space left on device"), replaced(tmp_path / "new"):
        raise OSError(28, "No space left on device")


def test_a_folder_takes_new_files_all_at_once_and_keeps_its_others(tmp_path):
    (tmp_path / "unet").mkdir()
    for name in ("model_index.json", "unet/old", "README.md"):
        (tmp_path / name).write_text("old")
    with replaced_files(tmp_path, last="model_index.json") as staged:
        (staged / "unet").mkdir()
        (staged / "unet" / "new").write_text("new")
        (staged / "model_index.json").write_text("new")
        assert (tmp_path / "unet" / "old").exists()
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"model_index.json", "unet/new", "README.md"}
    assert (tmp_path / "model_index.json").read_text() == "new"
    assert (tmp_path / "README.md").read_text() == "old"


def test_a_model_that_fails_to_be_written_leaves_the_old_one_whole(tmp_path):
    (tmp_path / "model_index.json").write_text("old")
    with pytest.raises(RuntimeError), replaced_files(tmp_path, "model_index.json") as staged:
        (staged / "model_index.json").write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["model_index.json"]
    assert (tmp_path / "model_index.json").read_text() == "old"
