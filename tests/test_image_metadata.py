"""Settings come back from pictures, ours and others', and from nothing else."""

import contextlib
import json
import time
import tracemalloc
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.errors import UserError
from sampling.examples import examples_of
from sampling.generator import DEFAULT_MODEL
from sampling.image import Picture
from sampling.image_metadata import init_image_of, request_from, request_of, settings_of
from sampling.request import Request
from webapp.limits import MAX_CHUNKS, MAX_TEXT_BYTES

SETTINGS = {"prompt": "a red creature, with wings", "negative_prompt": "blur\nnoise", "seed": 7,
            "steps": 12, "guidance_scale": 6.5, "width": 64, "height": 96,
            "scheduler": "UniPC", "model": "m", "dtype": "float32"}  # fmt: skip


def png(zip: bool = False, **chunks: str) -> bytes:
    """A small picture with text chunks."""
    info, content = PngInfo(), BytesIO()
    for name, text in chunks.items():
        info.add_text(name.replace("_", "-"), text, zip=zip)
    Image.new("RGB", (8, 8)).save(content, "PNG", pnginfo=info)
    return content.getvalue()


def test_a_picture_of_ours_brings_its_request_back(tmp_path):
    image = Image.new("RGB", (64, 96))
    Picture(image, SETTINGS["prompt"], 7, None, SETTINGS).save(tmp_path / "ours.png")
    assert request_of((tmp_path / "ours.png").read_bytes()) == Request(
        "a red creature, with wings", "blur\nnoise", seed=7, steps=12, guidance_scale=6.5,
        width=64, height=96, scheduler="UniPC",
    )  # fmt: skip


def test_the_settings_of_automatic1111_are_read():
    text = "a cat, sleeping\nNegative prompt: blur\nSteps: 30, Sampler: Euler a, CFG scale: 7, "
    picture = png(parameters=text + "Seed: 42, Size: 512x768, Model: v1-5")
    assert request_of(picture) == Request(
        "a cat, sleeping", "blur", seed=42, steps=30, guidance_scale=7.0, width=512, height=768,
        scheduler="Euler a",
    )  # fmt: skip


def test_a_picture_from_before_there_were_several_schedulers_is_read():
    settings = SETTINGS | {"scheduler": "DPMSolverMultistepScheduler"}
    picture = png(sd_pokemon=json.dumps(settings))
    assert request_of(picture).scheduler == "DPM++ 2M"


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
def test_a_sampler_of_theirs_is_ours_where_there_is_one(sampler, ours):
    picture = png(parameters=f"a cat\nSteps: 30, Sampler: {sampler}, Seed: 4")
    assert request_of(picture).scheduler == ours


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
def test_hostile_settings_are_a_sentence(chunks, sentence):
    with pytest.raises(UserError, match=sentence):
        request_of(png(**chunks))


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n" + b"x" * 99])
def test_what_is_no_picture_is_a_sentence(content):
    with pytest.raises(UserError, match="no PNG picture"):
        request_of(content)


@pytest.mark.parametrize("length", [16_000, 250_000])
@pytest.mark.parametrize("start", ["", "a\nSteps: 5, ", "a\n"])
def test_a_text_costs_no_more_than_its_length(start, length):
    picture = png(zip=True, parameters=start + "a" * length)
    before = time.thread_time()
    with contextlib.suppress(UserError):
        request_of(picture)
    assert time.thread_time() - before < 2  # a millisecond, and not the square of its length


def test_a_text_that_unfolds_to_more_than_is_read_is_a_sentence():
    tracemalloc.start()
    for zip in (True, False):
        with pytest.raises(UserError, match="carries no settings"):
            request_of(png(zip, sd_pokemon="x" * 10_000_000))
    picture = png(True, sd_pokemon="x" * 50_000_000)
    tracemalloc.reset_peak()
    held, _ = tracemalloc.get_traced_memory()
    with pytest.raises(UserError, match="carries no settings"):
        request_of(picture)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most - held < 10 * MAX_TEXT_BYTES


def test_a_picture_of_more_chunks_than_are_read_is_a_sentence():
    few, many = (png(**{f"k{n}": "" for n in range(count)}, parameters="a\nSteps: 5")
                 for count in (MAX_CHUNKS // 2, MAX_CHUNKS))  # fmt: skip
    assert request_of(few).prompt == "a"
    with pytest.raises(UserError, match="carries no settings"):
        request_of(many)


@pytest.mark.parametrize("zip", [False, True])
@pytest.mark.parametrize("prompt", ["plain", "Kätzchen", "a \N{CAT FACE}"])
def test_every_way_in_which_a_text_can_stand_in_a_picture_is_read(zip, prompt):
    assert request_of(png(zip, parameters=f"{prompt}\nSteps: 5")).prompt == prompt


def test_a_picture_says_which_picture_is_needed_to_draw_it_again():
    settings = SETTINGS | {"init_image": {"sha256": "ab" * 32}, "strength": 0.35}
    found = settings_of(png(sd_pokemon=json.dumps(settings)))
    assert init_image_of(found) == "ab" * 32
    request = request_from(found)
    assert (request.strength, request.init_image) == (0.35, None)
    for odd in (None, "ab" * 32, {}, {"sha256": 7}, {"sha256": "<b>"}, {"sha256": "ab" * 33}):
        assert init_image_of(settings | {"init_image": odd}) is None


def test_a_variation_comes_back_from_pictures_of_ours_and_of_automatic1111():
    ours = json.dumps(SETTINGS | {"variation_seed": 9, "variation_strength": 0.25})
    theirs = (
        "a cat\nSteps: 30, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 64x64, "
        "Variation seed: 9, Variation seed strength: 0.25, Model: m"
    )
    for found in (png(sd_pokemon=ours), png(parameters=theirs)):
        request = request_of(found)
        assert (request.variation_seed, request.variation_strength) == (9, 0.25)


def test_a_picture_that_was_damaged_on_the_way_is_no_picture():
    picture = bytearray(png(parameters="a red creature\nSteps: 5"))
    picture[picture.index(b"red")] = ord("b")
    with pytest.raises(UserError, match="no PNG picture"):
        request_of(bytes(picture))


def test_the_settings_of_a_picture_too_large_to_be_opened_are_read():
    image, content, info = Image.new("1", (30_000, 30_000)), BytesIO(), PngInfo()
    info.add_text("parameters", "a\nSteps: 5")
    image.save(content, "PNG", pnginfo=info)
    assert request_of(content.getvalue()).steps == 5
