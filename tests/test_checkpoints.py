"""What was learned is kept, whatever fails; who cannot go on with it can start from it."""

import json
import os
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from runs import add_picture, config_for, fresh_run, prepared, write_pictures
from safetensors.torch import load_file
from test_subject import learning

import train_text_to_image
from core.errors import UserError, sentence_of
from core.files import NotWritable
from training import checkpoints, full_disk
from training import latents as latents_module
from training.checkpoint_files import state_of, what_is_wrong
from training.config import Config
from training.full_disk import places
from training.loop import train
from training.weights import Learner


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> list[Path]:
    """The places outside of OUTPUT_DIR, all below this test's own folder; nobody waits for room."""
    monkeypatch.setattr(full_disk, "SECONDS_OF_WAITING", 0)
    found = [tmp_path / "elsewhere" / name for name in ("first", "second")]
    monkeypatch.setattr(full_disk, "places", lambda *_: iter(found))
    return found


def refusing(monkeypatch, *targets: str, times: int = 10**6) -> list[Path]:
    """No checkpoint is written below folders whose names end so; those that were tried."""
    plain, tried = checkpoints.save, []

    def save(folder, *arguments):
        there = any(str(folder.parent).endswith(target) for target in targets)
        if there and len(tried) < times and "rehearsal" not in folder.name:
            tried.append(folder)
            raise NotWritable(f"{folder} cannot be written: No space left on device.")
        plain(folder, *arguments)

    monkeypatch.setattr(checkpoints, "save", save)
    return tried


def breaking(monkeypatch, error: Exception, at: int) -> None:
    """Encoding or drawing of the batch of step `at` raises."""
    plain = latents_module.Latents.batch

    def batch(self, step: int, size: int):
        if step == at:
            raise error
        return plain(self, step, size)

    monkeypatch.setattr(latents_module.Latents, "batch", batch)


def whole(*folders: Path) -> bool:
    return all(what_is_wrong(folder) is None for folder in folders)


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(
    tiny_model, tmp_path, monkeypatch, capsys
):
    config = config_for(tiny_model, tmp_path, max_train_steps=60, checkpointing_steps=20)
    tried = refusing(monkeypatch, "out", times=2)
    run, learner, latents = prepared(config)
    steps, _ = train(learner, latents, config, run)
    names = [folder.name for folder in tried]
    assert steps == 60 and names == ["checkpoint-20", "checkpoint-22"]  # tried again soon
    assert {path.name for path in config.output.glob("checkpoint-*")} == {
        "checkpoint-24", "checkpoint-40", "checkpoint-60",
    }  # fmt: skip
    said = capsys.readouterr().err
    assert "No space left on device. Make room: the run goes on, and will try again." in said


def test_an_error_of_a_step_does_not_take_along_what_was_learned(tiny_model, tmp_path, monkeypatch):
    config = config_for(tiny_model, tmp_path, max_train_steps=8)
    run, learner, latents = prepared(config)
    train(learner, latents, config, run)
    unbroken = {name: weight.clone() for name, weight in learner.weights.items()}
    shutil.rmtree(config.output)
    breaking(monkeypatch, RuntimeError("CUDA error: unspecified launch failure"), at=5)
    run, learner, latents = prepared(config)
    with pytest.raises(RuntimeError, match="CUDA error") as caught:
        train(learner, latents, config, run)
    (note,) = caught.value.__notes__
    assert note == ("The state after step 5 is saved: go on with --resume_from_checkpoint latest.")
    monkeypatch.undo()
    resumed = replace(config, resume_from_checkpoint="latest")
    run, learner, latents = prepared(resumed)
    train(learner, latents, resumed, run)
    assert all(torch.equal(weight, unbroken[name]) for name, weight in learner.weights.items())


def test_out_of_memory_in_a_late_step_says_where_the_state_is(tiny_model, tmp_path, monkeypatch):
    breaking(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"), at=2)
    config = config_for(tiny_model, tmp_path, max_train_steps=8)
    fresh_run(config).close()
    with pytest.raises(
        UserError, match=r"(?s)ran out of memory.*The state after step 2 is saved: go"
    ):
        train_text_to_image.main(config)
    assert whole(config.output / "checkpoint-2")


def test_a_step_that_broke_off_in_the_middle_is_not_saved(tiny_model, tmp_path, monkeypatch):
    config = config_for(tiny_model, tmp_path, use_ema=True, max_train_steps=8)
    run, learner, latents = prepared(config)

    def update(weights, step):
        if step == 3:
            raise RuntimeError("half a step")

    monkeypatch.setattr(learner.ema, "update", update)
    with pytest.raises(RuntimeError, match="half a step") as caught:
        train(learner, latents, config, run)
    assert not hasattr(caught.value, "__notes__") and not list(config.output.glob("checkpoint-*"))


def test_before_the_first_step_there_is_nothing_to_save(tiny_model, tmp_path, monkeypatch):
    breaking(monkeypatch, RuntimeError("at once"), at=0)
    config = config_for(tiny_model, tmp_path)
    run, learner, latents = prepared(config)
    with pytest.raises(RuntimeError, match="at once") as caught:
        train(learner, latents, config, run)
    assert not hasattr(caught.value, "__notes__") and not list(config.output.glob("checkpoint-*"))


def test_what_output_dir_cannot_take_goes_elsewhere_and_is_resumed_from_there(
    tiny_model, tmp_path, monkeypatch, elsewhere
):
    config = config_for(tiny_model, tmp_path, max_train_steps=8)
    tried = refusing(monkeypatch, "out", "first")
    breaking(monkeypatch, RuntimeError("broken"), at=3)
    run, learner, latents = prepared(config)
    with pytest.raises(RuntimeError, match="broken") as caught:
        train(learner, latents, config, run)
    folder = elsewhere[1] / "checkpoint-3"
    assert f"saved: go on with --resume_from_checkpoint {folder}." in caught.value.__notes__[0]
    assert len(tried) == 2 and whole(folder) and not elsewhere[0].exists()
    monkeypatch.undo()
    resumed = replace(config, resume_from_checkpoint=str(folder))
    run, learner, latents = prepared(resumed)
    assert train(learner, latents, resumed, run)[0] == 8


def test_where_no_checkpoint_fits_the_model_alone_is_kept(
    tiny_model, tmp_path, monkeypatch, elsewhere
):
    config = config_for(tiny_model, tmp_path, max_train_steps=8)
    refusing(monkeypatch, "out", "first", "second")
    breaking(monkeypatch, RuntimeError("broken"), at=3)
    run, learner, latents = prepared(config)
    with pytest.raises(RuntimeError) as caught:
        train(learner, latents, config, run)
    assert f"The model after step 3 is whole in {elsewhere[0]}." in caught.value.__notes__[0]
    saved = load_file(elsewhere[0] / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(saved[name.removeprefix("unet.")], weight)
               for name, weight in learner.weights.items())  # fmt: skip
    assert json.loads((elsewhere[0] / "run.json").read_text())["steps"] == 3


def test_where_there_is_no_room_at_all_it_is_waited_for(
    tiny_model, tmp_path, monkeypatch, elsewhere, capsys
):
    config = config_for(tiny_model, tmp_path, max_train_steps=8)
    monkeypatch.setattr(full_disk, "SECONDS_OF_WAITING", 600)
    tried = refusing(monkeypatch, "out", "first", "second", times=8)
    monkeypatch.setattr(full_disk, "places", lambda *_: iter(elsewhere[:1]))
    monkeypatch.setattr(Learner, "save", lambda *_: (_ for _ in ()).throw(NotWritable("full")))
    slept = []
    monkeypatch.setattr(
        full_disk, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=slept.append)
    )
    breaking(monkeypatch, RuntimeError("broken"), at=3)
    run, learner, latents = prepared(config)
    with pytest.raises(RuntimeError) as caught:
        train(learner, latents, config, run)
    assert "go on with --resume_from_checkpoint latest" in caught.value.__notes__[0]
    assert whole(config.output / "checkpoint-3") and len(tried) == 8 and len(slept) == 4
    assert capsys.readouterr().err.count("No other place here takes what was learned") == 1


def test_the_other_places_can_be_written_and_are_named_after_the_run(tmp_path, monkeypatch):
    monkeypatch.undo()
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    found = list(places(tmp_path / "out", "run-1"))
    assert found[:2] == [tmp_path / "out-run-1", home / "out-run-1"]
    assert tmp_path / "missing" / "out-run-1" not in found


FAILURES = {
    "full": lambda: OSError(28, "No space left on device"),
    "overflow": lambda: UserError("The UNet has non-finite values in torch.float16."),
    "memory": lambda: MemoryError(),
    "gone": lambda: FileNotFoundError(2, "No such file or directory", "base/model_index.json"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_final_save_that_fails_keeps_what_was_trained(tiny_model, tmp_path, monkeypatch, failure):
    config = config_for(tiny_model, tmp_path)
    fresh_run(config).close()

    def save(*_):
        raise FAILURES[failure]()

    monkeypatch.setattr(Learner, "save", save)
    with pytest.raises(UserError) as caught:
        train_text_to_image.main(config)
    assert sentence_of(caught.value).endswith(
        "What was trained is kept: go on with --resume_from_checkpoint latest; only the saving is "
        "left to be done."
    )
    assert whole(config.output / "checkpoint-3")
    monkeypatch.undo()
    fresh_run(config).close()
    train_text_to_image.main(replace(config, resume_from_checkpoint="latest"))
    assert json.loads((config.output / "run.json").read_text())["steps"] == 3


def test_a_folder_that_is_deleted_meanwhile_is_made_again(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, max_train_steps=6, checkpointing_steps=4, log_every=1,
                        validation_prompts=("a",), validation_steps=3)  # fmt: skip

    looks = []

    def draw_and_delete(pipe, stop):
        looks.append(stop)
        if len(looks) < 3:
            shutil.rmtree(config.output)
        yield "", SimpleNamespace(save=lambda path: path.write_bytes(b"a picture"))

    run, learner, latents = prepared(config)
    assert train(learner, latents, config, run, draw_and_delete)[0] == 6
    assert whole(config.output / "checkpoint-4")
    assert json.loads(list((config.output / "log.jsonl").open())[-1])["step"] == 6


def test_a_log_that_cannot_be_written_ends_nothing_and_is_written_later(
    tiny_model, tmp_path, capsys
):
    run = fresh_run(config_for(tiny_model, tmp_path))
    log = run.config.output / "log.jsonl"
    log.unlink()
    log.mkdir()
    run.log({"step": 1})
    assert "log.jsonl" in capsys.readouterr().err
    log.rmdir()
    run.log({"step": 2})
    assert [json.loads(line)["step"] for line in log.open()] == [1, 2]


def test_a_best_model_that_cannot_be_saved_ends_nothing(tiny_model, tmp_path, monkeypatch, capsys):
    config = config_for(tiny_model, tmp_path, held_out=0.3, train_batch_size=2, max_train_steps=3,
                        validation_steps=1, learning_rate=1e-4)  # fmt: skip
    run, learner, latents = prepared(config)
    refuse = lambda *_: (_ for _ in ()).throw(NotWritable("best cannot be written: full."))  # noqa: E731
    monkeypatch.setattr(learner, "save", refuse)
    steps, state = train(learner, latents, config, run)
    assert steps == 3 and state["best"]["step"] == 0
    assert "best cannot be written: full. The run goes on without it." in capsys.readouterr().err


def test_a_tracker_that_fails_ends_nothing(tiny_model, tmp_path, monkeypatch, capsys):
    run = fresh_run(config_for(tiny_model, tmp_path, report_to="tensorboard"))

    def refuse(*_, **__):
        raise RuntimeError("the network is down")

    monkeypatch.setattr(run.accelerator, "log", refuse)
    run.log({"step": 1, "loss": 1.0})
    run.log({"step": 2, "loss": 1.0})
    said = capsys.readouterr().err
    assert said.count("tensorboard takes no more numbers (the network is down)") == 1


def stopped(tiny_model, tmp_path, **options) -> tuple[Config, Path]:
    """A run of three steps, and its checkpoint."""
    config = config_for(tiny_model, tmp_path, checkpointing_steps=3, **options)
    run, learner, latents = prepared(config)
    train(learner, latents, config, run)
    return replace(config, max_train_steps=5), config.output / "checkpoint-3"


def test_a_run_whose_data_have_changed_says_so_and_gives_the_command_that_starts_from_it(
    tiny_model, tmp_path
):
    more = {"validation_prompts": ("it's red", "b"), "num_validation_images": 0, "use_ema": True}
    config, folder = stopped(tiny_model, tmp_path, hub_token="hf_secret", **more)
    add_picture(tmp_path / "data", 12)
    resumed = replace(config, resume_from_checkpoint="latest", learning_rate=5e-4)
    with pytest.raises(UserError) as caught:
        run, learner, latents = prepared(resumed)
        train(learner, latents, resumed, run)
    sentence, _, command = str(caught.value).partition("weights: python train_text_to_image.py ")
    assert "the data has changed (12 pictures then, 13 now)" in sentence
    assert "--learning_rate was 0.001, now 0.0005" in sentence and "hf_secret" not in command
    fresh = Config.from_arguments(shlex.split(command))
    assert fresh == replace(resumed, resume_from_checkpoint=None, init_from_checkpoint=str(folder),
                           output_dir=f"{config.output}-2", hub_token=None)  # fmt: skip
    run, learner, latents = prepared(fresh)
    assert train(learner, latents, fresh, run)[0] == 5


def test_a_checkpoint_without_a_count_of_pictures_still_says_what_changed(tiny_model, tmp_path):
    config, folder = stopped(tiny_model, tmp_path)
    state = state_of(folder)
    del state["pictures"]  # as earlier versions wrote it
    add_picture(tmp_path / "data", 12)
    run, learner, latents = prepared(config)
    resumed = checkpoints.Checkpoints(learner, None, config, run, state["same"], latents)
    assert resumed._changes(state) == []
    resumed.same = state["same"] | {"the data": "another"}
    assert resumed._changes(state) == ["the data has changed (pictures or captions)"]


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("use_ema", [False, True])
def test_a_new_run_begins_with_what_another_would_have_saved(tiny_model, tmp_path, method, use_ema):
    config = config_for(tiny_model, tmp_path, checkpointing_steps=3, method=method, use_ema=use_ema)
    run, learner, latents = prepared(config)
    train(learner, latents, config, run)
    would = learner.ema.shadow if use_ema else learner.weights
    would = {name: weight.detach().clone() for name, weight in would.items()}
    folder, new = str(config.output / "checkpoint-3"), str(tmp_path / "new")
    others = {"use_ema": not use_ema, "learning_rate": 1e-30, "seed": 3}
    fresh = replace(config, init_from_checkpoint=folder, output_dir=new, **others)
    run, learner, latents = prepared(fresh)
    train(learner, latents, fresh, run)
    for weights in (learner.weights, *([learner.ema.shadow] if learner.ema else [])):
        assert all(torch.allclose(weights[name], would[name], atol=1e-6) for name in would)


def test_a_new_run_does_not_begin_with_what_does_not_fit_it(tiny_model, tmp_path):
    config, folder = stopped(tiny_model, tmp_path, train_text_encoder=True)
    fresh = replace(config, init_from_checkpoint=str(folder), output_dir=str(tmp_path / "new"))
    run, learner, latents = prepared(replace(fresh, train_text_encoder=False))
    with pytest.raises(UserError, match=r"text_encoder.* was trained then and is not now"):
        learner.start_from(folder)
    run, learner, latents = prepared(replace(fresh, method="lora"))
    with pytest.raises(UserError, match="was trained then and is not now"):
        learner.start_from(folder)
    (folder / "optimizer.safetensors").unlink()
    run, learner, latents = prepared(fresh)
    with pytest.raises(UserError, match="damaged"):
        train(learner, latents, fresh, run)
    with pytest.raises(UserError, match=r"nowhere is not a checkpoint"):
        fresh_run(replace(fresh, init_from_checkpoint="nowhere"))


def test_a_run_that_began_with_another_and_is_restarted_goes_on_with_its_own(tiny_model, tmp_path):
    config, folder = stopped(tiny_model, tmp_path)
    fresh = replace(config, init_from_checkpoint=str(folder), output_dir=str(tmp_path / "new"),
                   resume_from_checkpoint="auto")  # fmt: skip
    for end in (3, 5):
        options = replace(fresh, max_train_steps=end)
        run, learner, latents = prepared(options)
        assert train(learner, latents, options, run)[0] == end
    assert {path.name for path in Path(fresh.output_dir).glob("checkpoint-*")} == {"checkpoint-3"}


@pytest.mark.parametrize("where", ["data", "class"])
def test_a_picture_that_vanishes_in_the_middle_of_a_run_is_named_and_costs_nothing(
    tiny_model, tmp_path, monkeypatch, where
):
    options = {"no_cache": True, "max_train_steps": 16, "dataloader_num_workers": 2}
    if where == "class":
        write_pictures(tmp_path / "class", count=5)
        options |= {"class_data_dir": str(tmp_path / "class"), "with_prior_preservation": True,
                    "instance_prompt": "a sks dog", "class_prompt": "a dog", "num_class_images": 5,
                    "train_batch_size": 2}  # fmt: skip
    config = config_for(tiny_model, tmp_path, **options)
    kept = tmp_path / where / "3.png"
    content, plain = kept.read_bytes(), Learner.forward

    def forward(self, *inputs):
        if self.training and len(seen := forward.seen) < 3:
            seen.append(1)
            if len(seen) == 3:
                kept.unlink()
        return plain(self, *inputs)

    forward.seen = []
    monkeypatch.setattr(Learner, "forward", forward)
    run, learner, latents = learning(config)
    with pytest.raises(UserError) as caught:
        train(learner, latents, config, run)
    found = re.fullmatch(
        r"3\.png, which was there when the data were checked, is gone; put it back as it was, or "
        r"leave it out and start again\. The state after step (\d+) is saved: go on with "
        r"--resume_from_checkpoint latest\.", sentence_of(caught.value),
    )  # fmt: skip
    assert found and whole(config.output / f"checkpoint-{found[1]}")
    kept.write_bytes(content)
    resumed = replace(config, resume_from_checkpoint="latest")
    run, learner, latents = learning(resumed)
    assert train(learner, latents, resumed, run)[0] == 16


def test_a_picture_that_vanishes_after_the_last_step_costs_the_model_nothing(
    tiny_model, tmp_path, monkeypatch, capsys
):
    for no_cache in (True, False):
        config = config_for(tiny_model, tmp_path, no_cache=no_cache, output_dir=str(tmp_path / "o"))
        fresh_run(config).close()
        add_picture(tmp_path / "data", 20)
        plain = Learner.save

        def save(self, *arguments, plain=plain):
            (tmp_path / "data" / "20.png").unlink()
            plain(self, *arguments)

        monkeypatch.setattr(Learner, "save", save)
        train_text_to_image.main(config)
        monkeypatch.undo()
        assert (config.output / "report.html").exists()
        said = "20.png, which was there when the data were checked, is gone"
        assert (said in capsys.readouterr().err) == no_cache
        write_pictures_anew(tmp_path / "data")


def write_pictures_anew(folder: Path) -> None:
    shutil.rmtree(folder)
    write_pictures(folder)


def test_the_base_model_may_be_written_over_while_a_run_goes_on(tiny_model, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    config = config_for(str(base), tmp_path)
    unbroken = trained(config)
    shutil.rmtree(config.output)
    run, learner, latents = prepared(config)
    for path in base.glob("*/*.safetensors"):
        os.truncate(path, 0)  # reading a map of it would end this process
    train(learner, latents, config, run)
    learner.save(config.output, {})
    assert all(torch.equal(weight, unbroken[name]) for name, weight in learner.weights.items())


def trained(config) -> dict[str, torch.Tensor]:
    run, learner, latents = prepared(config)
    train(learner, latents, config, run)
    return dict(learner.weights)
