"""What metrics.py says where the answer is known beforehand, by the bundled scorer."""

import io
import json
import random
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import metrics
from bundled.creatures import HELD_OUT_SEEDS, draw
from core.errors import UserError
from evaluation.clip_score import BUNDLED

SEEDS = HELD_OUT_SEEDS[:24]


def write(folder: Path, images: list[Image.Image], captions: list[str]) -> Path:
    """A folder of captioned pictures."""
    folder.mkdir()
    rows = []
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        image.save(folder / f"{number}.png")
        rows.append(json.dumps({"file_name": f"{number}.png", "text": caption}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """The same captions with drawings of them, with noise, and with each other's drawings."""
    place = tmp_path_factory.mktemp("pictures")
    drawings = [draw("pokemon", seed) for seed in SEEDS]
    captions = [f"{drawing.captions[0]}, number {i}" for i, drawing in enumerate(drawings)]
    images = [drawing.image for drawing in drawings]
    noise = np.random.default_rng(0).integers(0, 256, (len(images), 128, 128, 3), dtype=np.uint8)
    shuffled = images[:]
    random.Random(0).shuffle(shuffled)
    return {
        "right": write(place / "right", images, captions),
        "noise": write(place / "noise", [Image.fromarray(pixels) for pixels in noise], captions),
        "shuffled": write(place / "shuffled", shuffled, captions),
    }


@pytest.fixture
def told(tmp_path, capsys):
    """`told(*arguments)`: what --output holds, and what was printed."""

    def run(*arguments) -> tuple[dict, str]:
        output = tmp_path / "scores.json"
        metrics.main([*map(str, arguments), "--scorer", BUNDLED, "--output", str(output)])
        return json.loads(output.read_text()), capsys.readouterr().out

    return run


def test_a_folder_against_itself_differs_by_exactly_zero(told, folders):
    content, said = told("--pictures", folders["right"], "--base", folders["right"])
    (comparison,) = content["comparisons"]
    assert comparison["mean_difference"] == 0 and comparison["interval_95"] == [0, 0]
    assert comparison["verdict"] == "these prompts cannot tell"
    assert "These prompts cannot tell right from right" in said


@pytest.fixture(scope="module")
def wrong(folders, tmp_path_factory) -> tuple[dict, str, str]:
    """What is told of noise and of shuffled captions beside the right ones, by --output, in the
    terminal and on the page: measured once, since it takes seconds."""
    place, said = tmp_path_factory.mktemp("told"), io.StringIO()
    arguments = ["--pictures", folders["noise"], folders["shuffled"], "--base", folders["right"],
                 "--data", folders["right"], "--scorer", BUNDLED,
                 "--output", place / "scores.json", "--report", place / "scores.html"]  # fmt: skip
    with redirect_stdout(said):
        metrics.main([*map(str, arguments)])
    content = json.loads((place / "scores.json").read_text())
    return content, said.getvalue(), (place / "scores.html").read_text()


@pytest.mark.parametrize(("number", "name"), enumerate(["noise", "shuffled"]))
def test_noise_and_shuffled_captions_are_worse_with_certainty(wrong, number, name):
    content, said, _ = wrong
    comparison = content["comparisons"][number]
    assert comparison["model"] == name
    assert comparison["verdict"] == "worse" and comparison["interval_95"][1] < -5
    assert f"{name} follows its prompts worse than right" in said
    if name == "noise":
        assert comparison["style"]["verdict"] == "worse"
        assert comparison["kid_difference"]["interval_95"][0] > 0


IMPOSTORS = {  # nearer than the plain drawings by their mean cosine with the training pictures
    "noise": lambda: Image.effect_noise((128, 128), 60).convert("RGB"),
    "blank white": lambda: Image.new("RGB", (128, 128), "white"),
    "one training picture for all": lambda: draw("pokemon", SEEDS[0]).image,
}


@pytest.mark.parametrize(
    "kind", ["noise", *(pytest.param(kind, marks=pytest.mark.slow) for kind in [*IMPOSTORS][1:])]
)
def test_what_has_not_the_style_is_not_called_nearer_to_it(kind, told, folders, tmp_path):
    captions = [f"creature {i}" for i in range(len(SEEDS))]
    plain = [draw("plain", seed).image for seed in SEEDS]
    base = write(tmp_path / "plain", plain, captions)
    ours = write(tmp_path / "ours", [IMPOSTORS[kind]() for _ in SEEDS], captions)
    content, said = told("--pictures", ours, "--base", base, "--data", folders["right"])
    assert content["comparisons"][0]["style"]["verdict"] != "better"
    assert "nearer to the style" not in said


def test_drawings_in_the_style_are_called_nearer_to_it(told, folders, tmp_path):
    captions = [f"creature {i}" for i in range(len(SEEDS))]
    looks = {
        look: [draw(look, 10**6 + i).image for i in range(24)] for look in ("plain", "pokemon")
    }
    plain, ours = (write(tmp_path / look, images, captions) for look, images in looks.items())
    content, said = told("--pictures", ours, "--base", plain, "--data", folders["right"])
    assert content["comparisons"][0]["style"]["verdict"] == "better"
    assert "Its pictures are nearer to the style of its training pictures (KID -" in said


def test_training_pictures_that_are_shown_as_drawn_are_all_found(told, folders):
    content, said = told("--pictures", folders["right"], "--data", folders["right"])
    (model,) = content["models"]
    assert model["memorisation"]["copies"] == model["memorisation"]["pictures"] == len(SEEDS)
    assert "24 of 24 pictures of right look like copies of training pictures: it has" in said
    assert "24 of them are training pictures themselves" in said


def test_two_colours_are_bound_in_drawings_and_not_in_noise(wrong):
    models = {model["model"]: model["binding"] for model in wrong[0]["models"]}
    right, noise = models["right"], models["noise"]
    assert right["pictures"] >= max(noise["pictures"], 8)
    assert right["right"] / right["pictures"] >= 0.9
    assert noise["right"] / max(noise["pictures"], 1) <= 0.8


def test_black_pictures_are_left_out_and_said_so(told, folders, tmp_path):
    captions = ["a red creature", "a blue creature"]
    images = [Image.new("RGB", (128, 128)), draw("pokemon", SEEDS[0]).image]
    content, said = told("--pictures", write(tmp_path / "black", images, captions))
    assert content["models"][0]["following"]["left_out"] == {"black": 1}
    assert "black: 1 picture left out and not scored (1 black)" in said
    assert "mean over 1 prompt of 2" in said


def test_pictures_with_other_captions_are_refused(told, folders, tmp_path):
    other = write(tmp_path / "other", [draw("pokemon", SEEDS[0]).image], ["a red creature"])
    with pytest.raises(UserError, match=r"cannot be compared: .*right has 1 picture of 'a"):
        told("--pictures", folders["right"], "--base", other)


def test_rows_in_another_order_are_paired_by_caption(told, folders, tmp_path):
    shutil.copytree(folders["right"], tmp_path / "turned")
    rows = (tmp_path / "turned" / "metadata.jsonl").read_text().split("\n")
    (tmp_path / "turned" / "metadata.jsonl").write_text("\n".join(reversed(rows)))
    content, said = told("--pictures", tmp_path / "turned", "--base", folders["right"])
    assert content["comparisons"][0]["mean_difference"] == 0
    assert "the same score for each of 24 prompts" in said


def test_the_page_shows_it_all_and_needs_nothing_but_itself(wrong):
    _, _, content = wrong
    assert "shuffled follows its prompts worse than right" in content
    assert content.count("data:image/jpeg;base64,") >= 3 * len(SEEDS)
    assert "http" not in content.replace('http-equiv="Content', "")
    assert "Closest to" in content and "a copy: likeness" in content
    assert "scorer_sha256" in content
