"""--judge NAME=PATH: what is wrong is one sentence before anything is opened; what is right stands
in the verdict, in JSON, on the page and in run.json."""

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import tiny_pipeline
from judge_files import csd_file, dino_folder, dinov2_folder, picture, sscd_file
from safetensors.torch import load_file
from scorers import tiny_scorer as tiny_scorer  # a fixture

import metrics
from core.errors import UserError
from evaluation.judges import options as judge_options
from evaluation.options import parse_options
from sampling.generator import Generator

KNOWN = "with one of: csd, dino, dinov2, sscd"


def refused(arguments: list[str], sentence: str, monkeypatch) -> None:
    def open_nothing(*_, **__):
        raise AssertionError("a model was opened first")

    monkeypatch.setattr(Generator, "load", open_nothing)
    with pytest.raises(UserError, match=sentence) as told:
        metrics.main(arguments)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("text", ["csd", "csd=", "=x.safetensors", "foo=x", "inception=x", "CSD=x"])
def test_what_is_no_name_and_path_is_refused_with_the_names_that_there_are(text, monkeypatch):
    refused(["--judge", text], f"--judge '{text}' is no NAME=PATH {KNOWN}", monkeypatch)


def test_a_judge_that_is_there_twice_is_refused(monkeypatch):
    refused(["--judge", "csd=a", "--judge", "csd=b"], "--judge csd is there twice", monkeypatch)


def test_judges_may_be_given_together_or_one_by_one_and_a_path_may_have_an_equals_sign():
    given = ["--judge", "csd=a=b", "dino=c", "--judge", "sscd=d", "--inception", "e"]
    options = parse_options(given)
    assert judge_options.chosen(options.judge, options.inception) == {
        "csd": "a=b", "dino": "c", "sscd": "d", "inception": "e"
    }  # fmt: skip


@pytest.mark.parametrize("name", judge_options.NAMES)
def test_weights_that_are_not_there_are_refused_before_anything_is_opened(name, monkeypatch):
    sentence = rf"--judge {name}=nowhere does not hold .*docs/judges\.md says, or leave it out"
    for more in ([], ["--pictures", "somewhere"]):
        refused(["--judge", f"{name}=nowhere", *more], sentence, monkeypatch)


def test_weights_of_another_judge_are_refused_by_the_first_tensor(tmp_path, monkeypatch):
    csd, sscd = csd_file(tmp_path), sscd_file(tmp_path)
    refused(["--judge", f"csd={sscd}"], "it has no backbone.positional_embedding", monkeypatch)
    refused(["--judge", f"sscd={csd}"], "backbone.conv1.weight has the shape 64 x 3 x 8 x 8, not "
            "64 x 3 x 7 x 7", monkeypatch)  # fmt: skip
    refused(["--inception", csd], "does not hold torchvision's inception_v3", monkeypatch)
    dino = dino_folder(tmp_path)
    refused(["--judge", f"dinov2={dino}"], "of a 'vit', not of a 'dinov2'", monkeypatch)
    refused(["--judge", f"csd={dino}"], "is no file but a folder", monkeypatch)


@pytest.mark.parametrize("name", ["sscd", "csd"])
def test_the_docs_turn_published_weights_into_a_file_that_is_read(name, tmp_path, monkeypatch):
    make, published = {
        "sscd": (sscd_file, "sscd_disc_mixup.torchvision.pt"), "csd": (csd_file, "checkpoint.pth")
    }[name]  # fmt: skip
    weights = load_file(make(tmp_path))
    if name == "csd":  # as it was trained by several processes
        weights = {"model_state_dict": {f"module.{n}": t for n, t in weights.items()}, "epoch": 3}
    (tmp_path / f"{name}.safetensors").unlink()
    torch.save(weights, tmp_path / published)
    docs = (Path(metrics.__file__).parent / "docs" / "judges.md").read_text()
    (code,) = (each for each in re.findall(r"```python\n(.*?)```", docs, re.S) if published in each)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    judge_options.check({name: f"{name}.safetensors"})


@pytest.fixture
def taught(tmp_path) -> tuple[Path, Path]:
    """Folders of a model that was taught a subject, and of the subject's pictures."""
    subject, model = tmp_path / "subject", tmp_path / "model"
    subject.mkdir()
    for seed in range(9):
        picture(32, 32, seed).save(subject / f"{seed}.png")
    tiny_pipeline().save_pretrained(model)
    options = {"instance_data_dir": str(subject), "instance_prompt": "a sks creature"}
    content = {"options": options, "dataset": {"pictures": 9}}
    (model / "run.json").write_text(json.dumps(content))
    return model, subject


@pytest.fixture
def score(taught, tiny_model, tiny_scorer, tmp_path):
    """Score the taught model beside another one; return what --output holds."""
    (tmp_path / "prompts.txt").write_text("\n".join(f"a sks creature in {i}" for i in range(16)))

    def run(*arguments: str, base: str = tiny_model) -> dict:
        metrics.main([
            "--model", str(taught[0]), "--base", base, "--scorer", tiny_scorer,
            "--prompts", str(tmp_path / "prompts.txt"), "--keep_prompts", "none", "--steps=1",
            "--images_per_prompt=1", "--output", str(tmp_path / "out.json"), *arguments,
        ])  # fmt: skip
        return json.loads((tmp_path / "out.json").read_text())

    return run


def test_all_judges_are_asked_and_tell_the_same_everywhere(
    score, taught, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("evaluation.judges.sscd.SIDE", 64)  # pixels: quicker
    # Pictures of random weights are alike, of which judges would say nothing.
    monkeypatch.setattr("evaluation.comparison.repeats", lambda *_: False)
    paths = {"csd": csd_file(tmp_path), "dino": dino_folder(tmp_path), "sscd": sscd_file(tmp_path),
             "dinov2": dinov2_folder(tmp_path)}  # fmt: skip
    asked = [f"{name}={path}" for name, path in paths.items()]
    content = score("--judge", *asked, "--report", str(tmp_path / "page.html"), "--write_run")
    base, ours = content["models"]
    said, page = capsys.readouterr().out, (tmp_path / "page.html").read_text()
    kept = json.loads((taught[0] / "run.json").read_text())["scores"]["prompts.txt"]
    for name in ("csd", "dinov2", "sscd", "likeness"):
        assert ours["judges"][name].keys() >= kept["judges"][name].keys()
        assert base["judges"][name]
    assert set(ours["judges"]["likeness"]) == {"clip_i", "dino"}
    made = ours["following"]["identity"]["judges_sha256"]
    assert set(made) == set(paths) and all(len(each) == 64 for each in made.values())
    for start in ("By CSD ", "By DINOv2 ", "By SSCD ", "By CLIP-I ", "By DINO ",
                  "Its likeness to its subject by DINO, against tiny: "):  # fmt: skip
        (sentence,) = [one for one in content["verdict"] if one.startswith(start)]
        assert sentence in said and sentence in kept["verdict"]
        assert sentence.replace(" %", "&nbsp;%").replace("'", "&#x27;") in page
    assert "by SSCD</h2>" in page and "similarity 0." in page
    assert content["comparisons"][0]["likeness"]["dino"]["interval_95"] is not None


def test_likeness_by_the_scorer_needs_no_weights_and_dino_only_a_subject(
    score, taught, tmp_path, capsys
):
    content = score()
    assert set(content["models"][1]["judges"]["likeness"]) == {"clip_i"}
    model, subject = taught
    (model / "run.json").write_text("{}")
    asked = ["--judge", f"dino={dino_folder(tmp_path)}", "--data", str(subject)]
    (subject / "metadata.jsonl").write_text(
        "".join(json.dumps({"file_name": f"{i}.png", "text": "a"}) + "\n" for i in range(9))
    )
    capsys.readouterr()
    content = score(*asked)
    assert content["models"][1]["judges"] == {}
    assert "warning: --judge dino tells how like pictures are to a subject" in (
        capsys.readouterr().err
    )


def test_pictures_that_are_there_are_judged_too(taught, tiny_scorer, tmp_path):
    _, subject = taught
    (subject / "metadata.jsonl").write_text(
        "".join(json.dumps({"file_name": f"{i}.png", "text": f"a {i}"}) + "\n" for i in range(9))
    )
    metrics.main([
        "--pictures", str(subject), "--data", str(subject), "--scorer", tiny_scorer,
        "--judge", f"csd={csd_file(tmp_path)}", "--output", str(tmp_path / "out.json"),
    ])  # fmt: skip
    (model,) = json.loads((tmp_path / "out.json").read_text())["models"]
    assert model["judges"]["csd"]["distances"]["kid"]["value"] < 0.01
