"""What a run leaves: model, card, report, and a copy on the hub that cannot cost the model."""

import json
from dataclasses import replace
from fnmatch import fnmatch
from io import BytesIO

import huggingface_hub
import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub.utils import filter_repo_objects
from PIL import Image, ImageChops
from runs import config_for, fresh_run, prepared, write_metadata

import train_text_to_image
from core.errors import UserError
from sampling.examples import examples_of
from sampling.generator import Generator
from sampling.preview import Preview
from training.final_save import hard_examples, save_examples


class Hub:
    """Stands for the hub: remembers what it was asked for, or fails with `error`."""

    def __init__(self, error: str | None = None, at: str = ""):
        self.asked, self.error, self.at = [], error, at

    def __call__(self, token=None):
        return self

    def create_repo(self, name, **_):
        self._answer("create_repo", name)

    def upload_folder(self, repo_id, folder_path, ignore_patterns):
        assert (folder_path / "model_index.json").is_file()
        self.ignored = ignore_patterns
        self._answer("upload_folder", repo_id)

    def _answer(self, what: str, name: str) -> None:
        if what == self.at:
            raise OSError(self.error)
        self.asked.append((what, name))


@pytest.fixture
def hub(monkeypatch):
    def use(**how) -> Hub:
        made = Hub(**how)
        monkeypatch.setattr(huggingface_hub, "HfApi", made)
        return made

    return use


def run(config) -> None:
    fresh_run(config).close()
    train_text_to_image.main(config)


def test_the_hardest_pictures_come_first_with_a_look_at_them(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path)
    started, learner, latents = prepared(config)
    hardest = hard_examples(learner, latents, config, started)
    assert [each.loss for each in hardest] == sorted((e.loss for e in hardest), reverse=True)
    assert {each.picture for each in hardest} == {f"{i}.png" for i in range(12)}
    captions = dict(zip(latents.images.names, latents.images.captions, strict=True))
    assert all(each.caption == captions[each.picture][0] for each in hardest)
    assert all(each.thumbnail.startswith(b"\xff\xd8") for each in hardest)


def test_a_run_leaves_a_card_and_a_report_and_says_where(tiny_model, tmp_path, capsys):
    config = config_for(tiny_model, tmp_path, held_out=0.3, train_batch_size=2)
    run(config)
    said = capsys.readouterr().err
    assert f"The model is in {config.output}." in said
    assert f"What happened is in {config.output / 'report.html'}." in said
    card = (config.output / "README.md").read_text()
    assert "library_name: diffusers" in card and "held-out" in card
    report = (config.output / "report.html").read_text()
    assert "a drawing of creature" in report and "<svg" in report
    manifest = json.loads((config.output / "run.json").read_text())
    assert manifest["best"]["by"] == "held-out loss" and manifest["stopped_early"] is False


def test_a_card_that_a_person_wrote_stays(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path)
    run(config)
    written = (config.output / "README.md").read_text()
    (config.output / "README.md").write_text(written.replace("How to use it", "Old"))
    run(config)  # a card of a run gives way to that of the next
    assert "How to use it" in (config.output / "README.md").read_text()
    (config.output / "README.md").write_text("mine")
    run(config)
    assert (config.output / "README.md").read_text() == "mine"


def test_an_upload_comes_last_and_leaves_checkpoints_out(hub, tiny_model, tmp_path):
    there = hub()
    run(config_for(tiny_model, tmp_path, push_to_hub=True, hub_model_id="me/mine"))
    assert there.asked == [("create_repo", "me/mine"), ("upload_folder", "me/mine")]
    assert "checkpoint-*" in there.ignored and "*.jsonl" in there.ignored
    names = ["README.md", "captions.json", "validation/step-000001-0.png"]
    left_out = ["validation/kept/step-000001-0.png", "best/run.json", "checkpoint-1/state.json"]
    assert list(filter_repo_objects(names + left_out, ignore_patterns=there.ignored)) == names


def test_an_upload_that_fails_is_a_sentence_and_the_model_is_whole(hub, tiny_model, tmp_path):
    hub(error="the line is dead", at="upload_folder")
    config = config_for(tiny_model, tmp_path, push_to_hub=True)
    with pytest.raises(
        UserError, match=r"whole in .*/out, .* \(the line is dead\).* hf upload out"
    ):
        run(config)
    StableDiffusionPipeline.from_pretrained(config.output)
    assert (config.output / "report.html").is_file()


def test_a_hub_that_does_not_answer_is_found_before_training(hub, tiny_model, tmp_path):
    hub(error="no login", at="create_repo")
    config = config_for(tiny_model, tmp_path, push_to_hub=True)
    with pytest.raises(UserError, match=r"--push_to_hub: out cannot be made .* \(no login\)"):
        run(config)
    assert not (config.output / "log.jsonl").read_text()


def test_the_token_of_the_hub_is_kept_nowhere(hub, tiny_model, tmp_path):
    hub()
    config = config_for(tiny_model, tmp_path, push_to_hub=True, hub_token="hf_secret",
                        checkpointing_steps=1)  # fmt: skip
    run(config)
    for path in config.output.rglob("*"):
        assert path.is_dir() or b"hf_secret" not in path.read_bytes(), path


def test_a_caption_that_is_html_is_shown_as_text(tiny_model, tmp_path):
    (tmp_path / "data").mkdir()
    Image.new("RGB", (32, 32), "red").save(tmp_path / "data" / "0.png")
    write_metadata(tmp_path / "data", [{"file_name": "0.png", "text": "<script>alert(1)</script>"}])
    config = config_for(tiny_model, tmp_path, train_batch_size=1)
    run(config)
    report = (config.output / "report.html").read_text()
    assert "<script>" not in report and "&lt;script&gt;alert(1)" in report


def test_the_final_models_pictures_become_its_examples_and_give_way_to_the_next(
    hub, tiny_model, tmp_path
):
    there = hub()
    prompts = ("a red creature", "a blue one")
    config = config_for(tiny_model, tmp_path, validation_prompts=prompts, num_validation_images=2,
                        push_to_hub=True)  # fmt: skip
    run(config)
    examples = examples_of(str(config.output))
    assert [each.request.prompt for each in examples] == list(prompts)
    last = config.output / "validation" / "step-000003-2.png"
    assert examples[1].png == last.read_bytes()
    with Image.open(BytesIO(examples[0].png)) as picture:
        settings = json.loads(picture.text["sd-pokemon"])
    manifest = json.loads((config.output / "run.json").read_text())
    assert (settings["model"], settings["run_id"]) == ("out", manifest["run_id"])
    assert not any(fnmatch("examples/00.png", pattern) for pattern in there.ignored)

    redrawn = next(Generator.load(str(config.output)).pictures([examples[1].request])).image
    shown = Image.open(BytesIO(examples[1].png))
    assert max(high for _, high in ImageChops.difference(redrawn, shown).getextrema()) <= 2

    run(replace(config, validation_prompts=(), push_to_hub=False))
    assert not (config.output / "examples").exists()


def test_a_black_picture_is_no_example(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path, validation_prompts=("a", "b"))
    folder = config.output / "validation"
    folder.mkdir(parents=True)
    for number, colour in enumerate(("black", "red")):
        Image.new("RGB", (8, 8), colour).save(folder / f"step-000003-{number}.png")
    save_examples(config, 3)
    (kept,) = (config.output / "examples").iterdir()
    assert kept.read_bytes() == (folder / "step-000003-1.png").read_bytes()


def test_the_colours_of_previews_are_saved_with_the_model(tiny_model, tmp_path):
    config = config_for(tiny_model, tmp_path)
    run(config)
    generator = Generator.load(str(config.output))
    saved = Preview.read(config.output, channels=4)
    assert torch.allclose(saved.weights, Preview.fitted(generator.pipe.vae).weights, atol=1e-4)


@pytest.mark.parametrize(
    "content", ["", "[" * 100_000, "{}", "[[1, 2]]", '[["a", "b", "c"]]', "[1, [2]]",
                "[[0,0,0],[0,0,0],[0,0,0],[0,0,0],[0,0,NaN]]", "[[0,0,0],[0,0,0]]"]
)  # fmt: skip
def test_damaged_colours_are_as_if_there_were_none(tmp_path, content):
    (tmp_path / "latent_rgb.json").write_text(content)
    assert Preview.read(tmp_path, channels=4) is None
    assert Preview.read(tmp_path / "nowhere", channels=4) is None
