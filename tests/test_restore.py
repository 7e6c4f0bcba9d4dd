"""Settings come back from pictures, ours and others', and from nothing else."""

import json
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from errors import UserError
from generate import DEFAULT_MODEL
from serving.page.examples import examples_of
from serving.picture import Picture
from serving.request import Request
from serving.restore import request_of

SETTINGS = {"prompt": "a red creature, with wings", "negative_prompt": "blur\nnoise", "seed": 7,
            "steps": 12, "guidance_scale": 6.5, "width": 64, "height": 96,
            "scheduler": "UniPC", "model": "m", "dtype": "float32"}  # fmt: skip


def png(path, **chunks: str):
    """A small picture with text chunks."""
    info = PngInfo()
    for name, text in chunks.items():
        info.add_text(name.replace("_", "-"), text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def test_a_picture_of_ours_brings_its_request_back(tmp_path):
    image = Image.new("RGB", (64, 96))
    Picture(image, SETTINGS["prompt"], 7, None, SETTINGS).save(tmp_path / "ours.png")
    assert request_of(tmp_path / "ours.png") == Request(
        "a red creature, with wings", "blur\nnoise", seed=7, steps=12, guidance_scale=6.5,
        width=64, height=96, scheduler="UniPC",
    )  # fmt: skip


def test_the_settings_of_automatic1111_are_read(tmp_path):
    text = "a cat, sleeping\nNegative prompt: blur\nSteps: 30, Sampler: Euler a, CFG scale: 7, "
    path = png(tmp_path / "theirs.png", parameters=text + "Seed: 42, Size: 512x768, Model: v1-5")
    assert request_of(path) == Request(
        "a cat, sleeping", "blur", seed=42, steps=30, guidance_scale=7.0, width=512, height=768,
        scheduler="Euler a",
    )  # fmt: skip


def test_a_picture_from_before_there_were_several_schedulers_is_read(tmp_path):
    settings = SETTINGS | {"scheduler": "DPMSolverMultistepScheduler"}
    path = png(tmp_path / "former.png", sd_pokemon=json.dumps(settings))
    assert request_of(path).scheduler == "DPM++ 2M"


def test_the_pictures_that_come_with_the_bundled_model_are_shown():
    paths = list(Path(DEFAULT_MODEL).glob("examples/*.png"))
    assert len(examples_of(DEFAULT_MODEL)) == len(paths) > 0


@pytest.mark.parametrize(
    ("sampler", "ours"),
    [
        ("Euler, Schedule type: Automatic", "Euler"),
        ("DPM++ 2M, Schedule type: Karras", "DPM++ 2M Karras"),
        ("DPM++ 2M Karras", "DPM++ 2M Karras"),
        ("Restart", "DPM++ 2M"),  # which is not here
    ],
)
def test_a_sampler_of_theirs_is_ours_where_there_is_one(tmp_path, sampler, ours):
    path = png(tmp_path / "theirs.png", parameters=f"a cat\nSteps: 30, Sampler: {sampler}, Seed: 4")
    assert request_of(path).scheduler == ours


@pytest.mark.parametrize(
    ("chunks", "sentence"),
    [
        ({}, "carries no settings"),
        ({"sd_pokemon": "{"}, "carries no settings"),
        ({"sd_pokemon": "[" * 100_000}, "carries no settings"),
        ({"sd_pokemon": "[1]"}, "carries no settings"),
        ({"parameters": "only words"}, "carries no settings"),
        ({"parameters": "a\nSteps: many, Seed: 1"}, "carries no settings"),
        ({"sd_pokemon": json.dumps(SETTINGS | {"steps": 10**9})}, "steps is 1000000000. Give"),
        ({"sd_pokemon": json.dumps(SETTINGS | {"scheduler": "__class__"})}, "no scheduler '__cla"),
        ({"sd_pokemon": json.dumps(SETTINGS | {"prompt": ["x"]})}, "prompt is of type list"),
        ({"sd_pokemon": json.dumps(SETTINGS | {"guidance_scale": float("nan")})}, "guidance_scale"),
        ({"parameters": "a\nSteps: 5, Size: 99999x99999"}, "width is 99999"),
    ],
)
def test_hostile_settings_are_a_sentence(tmp_path, chunks, sentence):
    with pytest.raises(UserError, match=sentence):
        request_of(png(tmp_path / "bad.png", **chunks))


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n" + b"x" * 99])
def test_what_is_no_picture_is_a_sentence(tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(UserError, match="no PNG picture"):
        request_of(tmp_path / "bad.png")


def test_too_much_text_and_too_many_pixels_are_a_sentence(tmp_path):
    with pytest.raises(UserError, match="carries no settings"):
        request_of(png(tmp_path / "long.png", sd_pokemon="x" * 10_000_000))
    Image.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")
    with pytest.raises(UserError, match="no PNG picture"):
        request_of(tmp_path / "bomb.png")
