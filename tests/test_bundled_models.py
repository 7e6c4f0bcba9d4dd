"""The models that ship: they open anywhere, and they do what they are for."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from benchmarks.bundled_quality import BARS, below_bars
from bundled.creatures import HELD_OUT_SEEDS, draw
from bundled.pixels import body_colour
from core.model_captions import captions_of
from evaluation.clip_score import BUNDLED, Scorer
from sampling.generator import DEFAULT_MODEL, Generator
from sampling.request import Request

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("bundled", "sd-pokemon-model")
MODELS = ("sd-pokemon-model", "bundled/base-model")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")


@pytest.mark.parametrize("model", MODELS)
def test_an_unmodified_pipeline_opens_it_and_draws_a_picture_with_something_on_it(model):
    pipe = StableDiffusionPipeline.from_pretrained(ROOT / model, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(1)
    picture = pipe("a red creature", num_inference_steps=10, generator=noise).images[0]
    assert picture.size == (128, 128) and np.asarray(picture).std() > 20


def test_weights_are_whole_files_that_a_clone_brings_quickly():
    """No pointer to a file elsewhere, nothing cut off; 50 MB is where GitHub begins to complain."""
    sizes = {}
    for path in (path for folder in FOLDERS for path in (ROOT / folder).glob("**/*.safetensors")):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        sizes[path] = path.stat().st_size
        assert sizes[path] == 8 + length + max(ends), path
    assert len(sizes) >= 7 and max(sizes.values()) < 50e6 and sum(sizes.values()) < 150e6


def test_a_bundled_model_that_misses_a_bar_is_named():
    good = {name: 1.0 for name in BARS}
    assert below_bars({"generated": good, "classifier": 1.0}) == []
    poor = good | {"wing colour": 0.79}
    assert below_bars({"generated": poor, "classifier": 0.9}) == ["wing colour", "classifier"]


@pytest.mark.parametrize("model", MODELS)
def test_its_manifest_says_how_it_was_made(model):
    run = json.loads((ROOT / model / "run.json").read_text())
    assert run["run_id"] and run["steps"] == run["options"]["max_train_steps"]
    assert run["dataset"]["pictures"] >= 833


@pytest.mark.parametrize("model", MODELS)
def test_its_captions_tell_words_that_it_has_never_seen_from_those_that_it_knows(model):
    known = captions_of(ROOT / model)
    assert known.unknown("a purple dog beside a zeppelin, by Vermeer") == [
        "zeppelin",
        "by",
        "Vermeer",
    ]
    everyday = (ROOT / "bundled" / "everyday_prompts.txt").read_text().splitlines()
    assert [known.unknown(prompt) for prompt in everyday] == [[]] * 45


def test_a_creature_has_the_colour_that_the_prompt_names():
    generator = Generator.load(DEFAULT_MODEL)
    requests = [Request(f"a drawing of a {c} creature", seed=i) for i, c in enumerate(COLOURS)]
    seen = [body_colour(picture.image) for picture in generator.pictures(requests)]
    assert sum(a == b for a, b in zip(seen, COLOURS, strict=True)) >= len(COLOURS) - 1


def test_the_scorer_prefers_the_right_caption_to_that_of_another_drawing():
    scorer = Scorer.load(BUNDLED)
    drawings = [draw("pokemon", seed) for seed in HELD_OUT_SEEDS[:40]]
    right = [scorer.score(d.image, d.captions[0]) for d in drawings]
    wrong = [
        scorer.score(d.image, other.captions[0])
        for d, other in zip(drawings, drawings[1:] + drawings[:1], strict=True)
    ]
    assert np.mean([a > b for a, b in zip(right, wrong, strict=True)]) >= 0.9
