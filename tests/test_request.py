"""sampling/request.py: what can be asked for, and what is said of the rest."""

import re
import unicodedata
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from core.errors import UserError
from core.printable import is_blank
from sampling.request import BOUNDS, NO_TEXT, SCHEDULERS, SEEN, Request


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("prompt", v) for v in ("", " \n", None, ["a"], 7, "a" * 2001, "nul \0", "\ud800")),
        *(("negative_prompt", v) for v in (None, "a" * 2001, "bell \a")),
        *(("seed", v) for v in (-1, 2**32, 1.5, "7", True, None)),
        *(("num_images", v) for v in (0, 17, True, 2.5)),
        *(("steps", v) for v in (0, 151, 3.7, float("nan"), "20", None)),
        *(("guidance_scale", v) for v in (0, 31, float("nan"), float("inf"), True, "5", 1e309)),
        *(("width", v) for v in (24, 33, 1032, 64.5, "64")),
        *(("height", v) for v in (-8, 513, 10**9)),
        *(("variation_seed", v) for v in (-1, 2**32, 1.5, None)),
        *(("variation_strength", v) for v in (-0.1, 1.1, float("nan"), "1", True, None)),
        *(("init_image", v) for v in ("a", b"a", "iVBORw0KGgo=", 7, ["a"])),
        *(("strength", v) for v in (-0.1, 1.1, float("nan"), "1", True, None)),
        *(("lora_scale", v) for v in (-0.1, 2.1, float("nan"), "1", True, None)),
        *(("guidance_stop", v) for v in (-0.1, 1.1, float("nan"), "1", True, None)),
        *(("cache_interval", v) for v in (0, 11, 1.5, "2", True, None)),
        *(("scheduler", v) for v in ("", "ddim", "__class__", None, 3, ["DDIM"])),
    ],
)
def test_a_value_that_cannot_be_drawn_is_refused_by_a_sentence(field, value):
    with pytest.raises(UserError) as refusal:
        Request(**{"prompt": "a red creature", field: value})
    sentence = str(refusal.value)
    assert field.replace("_", " ") in sentence.replace("_", " ")
    assert sentence.endswith(".") and "\n" not in sentence and len(sentence) < 200


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "a", "seed": 0, "num_images": 1, "steps": 1, "guidance_scale": 1,
         "width": 32, "height": 32},
        {"prompt": "a" * 2000, "negative_prompt": "b" * 2000, "seed": 2**32 - 1, "num_images": 16,
         "steps": 150, "guidance_scale": 30, "width": 1024, "height": 1024},
    ],
    ids=["smallest", "largest"],
)  # fmt: skip
def test_the_smallest_and_the_largest_request_can_be_drawn(values):
    request = Request(**values)
    assert {name: getattr(request, name) for name in values} == values


def test_what_is_not_given_is_one_picture_of_the_models_own_size_by_the_usual_settings():
    assert vars(Request("a")) == {
        "prompt": "a", "negative_prompt": "", "seed": 0, "num_images": 1, "steps": 20,
        "guidance_scale": 5.0, "width": None, "height": None, "scheduler": "DPM++ 2M",
        "prompt_weights": True,
        "variation_seed": 0, "variation_strength": 0.0, "init_image": None, "strength": 0.8,
        "lora_scale": 1.0, "guidance_stop": 1.0, "cache_interval": 1,
    }  # fmt: skip


@pytest.mark.parametrize("size", [513, 519])
def test_a_size_between_two_multiples_of_eight_names_the_one_below(size):
    with pytest.raises(UserError, match=f"^height is {size}. Give a multiple of 8, such as 512.$"):
        Request("a", height=size)


def test_a_request_that_was_checked_cannot_be_changed():
    request = Request("a")
    with pytest.raises(FrozenInstanceError):
        request.steps = 10_000


def test_of_the_schedulers_karras_alone_has_the_sigmas_of_karras():
    """Karras et al. 2022, equation 5: evenly spaced to the power of 1/7."""
    import diffusers

    spaced = {}
    for name, (kind, options) in SCHEDULERS.items():
        scheduler = getattr(diffusers, kind)(**options)
        scheduler.set_timesteps(10)
        if hasattr(scheduler, "sigmas"):
            steps = np.diff(np.asarray(scheduler.sigmas[:10], dtype=float) ** (1 / 7))
            spaced[name] = bool(np.allclose(steps, steps[0], rtol=1e-3))
    assert len(spaced) == 6 and [name for name in spaced if spaced[name]] == ["DPM++ 2M Karras"]


def test_the_bounds_themselves_are_allowed():
    for name, bounds in BOUNDS.items():
        for value in bounds:
            assert getattr(Request("a", **{name: value}), name) == value


def test_a_whole_number_may_be_written_with_a_point():
    request = Request("a", steps=20.0, seed=7.0, width=64.0, guidance_scale=5.0)
    assert request == Request("a", steps=20, seed=7, width=64, guidance_scale=5)
    assert {type(n) for n in (request.steps, request.seed, request.width)} == {int}


@pytest.mark.parametrize("blank", ["", " \n\t", "\u3000\u00a0", "\u200b", "\ufeff \u2060"])
def test_a_prompt_of_which_nothing_is_seen_is_empty(blank):
    with pytest.raises(UserError, match="The prompt is empty"):
        Request(blank)
    assert Request("a", negative_prompt=blank).negative_prompt == blank


def test_what_can_be_seen_is_the_same_everywhere():
    ours, text = re.compile(SEEN), re.compile(NO_TEXT)
    for character in map(chr, (*range(0x20000), *range(0xE0000, 0xE1100))):
        known = unicodedata.category(character) != "Cn"  # the rest may be named by a later Unicode
        if known and not text.match(character):
            assert is_blank(character) == (not ours.match(character)), hex(ord(character))


def test_seeds_count_up_and_start_again_after_the_last():
    assert Request("a", seed=2**32 - 2, num_images=3).seeds == [2**32 - 2, 2**32 - 1, 0]
