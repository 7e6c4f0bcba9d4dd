"""The verdict of metrics.py at the looks of a training run."""

import json
import shutil
from contextlib import redirect_stderr
from dataclasses import replace
from html import unescape
from io import StringIO
from types import SimpleNamespace

import pytest
from accelerate.state import AcceleratorState
from PIL import Image
from runs import config_for
from scorers import tiny_scorer as tiny_scorer  # a fixture

import train_text_to_image
from core.errors import UserError
from evaluation import validation_prompts
from evaluation.clip_score import Scorer
from evaluation.during_training import NO_BASE, ValidationVerdict
from evaluation.reference_images import CaptionedImage
from evaluation.validation_prompts import ValidationPrompts, validation_sets


@pytest.fixture(autouse=True)
def forgetful_accelerate():
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def trained(tiny_model, tiny_scorer, tmp_path_factory):
    """Options of a run that has ended, and what it said."""
    folder = tmp_path_factory.mktemp("along")
    (folder / "keep.txt").write_text("a house\na tree\n")
    config = config_for(
        tiny_model, folder, held_out=0.4, train_batch_size=2, max_train_steps=4,
        checkpointing_steps=2, validation_steps=2, validation_prompts=("x", "y"),
        num_validation_images=2, validation_scorer=tiny_scorer, validation_captions=3,
        validation_keep_prompts=str(folder / "keep.txt"), validation_copies=3,
    )  # fmt: skip
    said = StringIO()
    with redirect_stderr(said):
        train_text_to_image.main(config)
    return config, " ".join(said.getvalue().split())


@pytest.fixture
def config(trained, tmp_path):
    """The same options with a copy of the folder."""
    config, _ = trained
    shutil.copytree(config.output, tmp_path / "out")
    return replace(config, output_dir=str(tmp_path / "out"))


def looks_of(config) -> list[dict]:
    lines = [json.loads(line) for line in (config.output / "log.jsonl").open()]
    return [line for line in lines if "learning_rate" not in line]


def test_a_look_tells_the_verdict_and_log_report_card_and_terminal_the_same(trained):
    config, said = trained
    looks = looks_of(config)
    assert [look["step"] for look in looks] == [0, 2, 4]
    assert "verdict" not in looks[0] and "copies" not in looks[0]
    for look in looks[1:]:
        words = " ".join(look["verdict"])
        assert "tell step" in words or "follows its prompts" in words
        assert "forg" in words and "copies" in look
        assert look["copies"]["pictures"] == 4 + 3 + 3
        assert len(look["clip_scores"]) == 2 + 3 and look["kept_score"] >= 0
        assert all(sentence in said for sentence in look["verdict"])
    report = unescape((config.output / "report.html").read_text())
    card = (config.output / "README.md").read_text()
    for sentence in looks[-1]["verdict"]:
        assert sentence in report and sentence in card
    # Only what the options name lies where the report looks for it.
    names = {path.name for path in (config.output / "validation").glob("*.png")}
    assert names == {f"step-{step:06}-{n}.png" for step in (0, 2, 4) for n in range(4)}
    assert len(list((config.output / "validation" / validation_prompts.KEPT).iterdir())) == 3 * 2


def test_a_resumed_run_compares_with_what_the_base_model_drew(config):
    whole = looks_of(config)[-1]
    shutil.rmtree(config.output / "checkpoint-4")
    train_text_to_image.main(replace(config, resume_from_checkpoint="latest"))
    again = looks_of(config)[-1]
    assert again["step"] == 4 and again["clip_scores"] == pytest.approx(whole["clip_scores"])
    assert again["verdict"] == whole["verdict"]


def test_where_what_the_base_model_drew_is_gone_nothing_is_compared(tiny_scorer, tmp_path):
    wanted = [ValidationPrompts("", ("a",))]
    verdict = ValidationVerdict(
        Scorer.load(tiny_scorer), wanted, tmp_path, "base", 1, training=list
    )
    drawn = [("", picture_of(Image.radial_gradient("L").convert("RGB")))]
    assert verdict(4, drawn)["verdict"] == [NO_BASE]
    drawn[0][1].image.save(tmp_path / "step-000000-0.png")
    assert "These prompts cannot tell step 5 from base" in verdict(5, drawn)["verdict"][0]


def test_copies_are_found_at_the_look_that_shows_them(tiny_scorer, tmp_path):
    training = [
        CaptionedImage(f"{n}.png", f"thing {n}", lambda n=n: Image.effect_mandelbrot(
            (48, 48), (-2 + n / 9, -1.5, 1, 1.5), 20 + n).convert("RGB"))
        for n in range(8)
    ]  # fmt: skip
    wanted = [
        ValidationPrompts("", ("a", "b")),
        ValidationPrompts(validation_prompts.COPIES, ("thing 1", "thing 2")),
    ]
    verdict = ValidationVerdict(
        Scorer.load(tiny_scorer), wanted, tmp_path, "base", validations=1, training=lambda: training
    )
    new = [Image.radial_gradient("L"), Image.linear_gradient("L")]
    drawn = [("", picture_of(image.convert("RGB"))) for image in new]
    copies = [(validation_prompts.COPIES, picture_of(training[n].image())) for n in (1, 2)]
    fresh = [
        (validation_prompts.COPIES, picture_of(image.rotate(90).convert("RGB"))) for image in new
    ]
    assert verdict(0, drawn + fresh).keys() == {"clip_score", "clip_scores"}
    assert verdict(1, drawn + fresh)["copies"] == {"copies": 0, "pictures": 4}
    record = verdict(2, drawn + copies)
    assert record["copies"] == {"copies": 2, "pictures": 4}
    assert "it has memorised. 2 of them are training pictures" in " ".join(record["verdict"])


def picture_of(image: Image.Image) -> SimpleNamespace:
    return SimpleNamespace(image=image, seed=0, problem=None)


def test_without_a_scorer_nothing_but_the_validation_prompts_is_drawn(config):
    plain = replace(config, validation_scorer=None)
    assert validation_sets(plain, ["a"], ["b"]) == [ValidationPrompts("", ("x", "y"), 2)]
    assert validation_sets(replace(config, validation_prompts=()), ["a"], ["b"]) == []


def test_other_pictures_than_validation_ones_have_seeds_of_their_own():
    assert ValidationPrompts("", ("a", "b"), 4).seeds(7) == [7, 7]
    assert ValidationPrompts(validation_prompts.KEPT, ("a", "b")).seeds(7) == [7, 23]


@pytest.mark.parametrize(
    ("name", "fault"),
    [("nothing", "Unknown prompts 'nothing'"), ("no.txt", "no.txt cannot be read")],
)
def test_unknown_prompts_are_refused_before_anything_is_read(config, name, fault, tmp_path):
    empty = tmp_path / "empty"  # a folder that is refused as soon as it is read
    empty.mkdir()
    config = replace(config, validation_keep_prompts=name, train_data_dir=str(empty))
    with pytest.raises(UserError, match=fault):
        train_text_to_image.main(config)
