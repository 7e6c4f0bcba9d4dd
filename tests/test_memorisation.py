"""Copies are found whatever was done to them, and what is only alike is not called one."""

from functools import partial

import numpy as np
import pytest
from diffusers import AutoencoderKL
from PIL import Image, ImageDraw

from benchmarks.copies import first, kinds, looks_of, noisy
from bundled.creatures import draw
from evaluation.clip_score import BUNDLED, Scorer
from evaluation.image_registration import is_blank, reduced
from evaluation.memorisation import (
    EXACT,
    LIKE,
    SHARE,
    ImageSignatures,
    Memorisation,
    NearestImage,
    memorisation,
)

TRAINING, NEW = range(60), range(92_000_000, 92_000_030)
ALWAYS = "exact", "JPEG of quality 90", "through the VAE", "mirrored"
NEARLY = "mild noise", "crop of 95 %", "crop of 90 %", "shifted", "recoloured", "blended"


@pytest.fixture(scope="module")
def looked_at():
    """`looked_at(images)` by the bundled scorer."""
    return partial(looks_of, Scorer.load(BUNDLED))


@pytest.fixture(scope="module")
def images():
    return [draw("pokemon", seed).image for seed in TRAINING]


@pytest.fixture(scope="module")
def training(looked_at, images):
    return looked_at(images)


@pytest.fixture(scope="module")
def changes(images):
    vae = AutoencoderKL.from_pretrained("sd-pokemon-model", subfolder="vae").float()
    return kinds(vae, images)


@pytest.fixture(scope="module")
def found(looked_at, images, training, changes):
    """By number of training pictures and kind, what is found of copies of the first pictures."""
    some, rng = images[:6], np.random.default_rng(1)
    copies = looked_at([change(image, rng) for change in changes.values() for image in some])
    memories = {count: memorisation(copies, first(training, count)) for count in (20, 60)}
    return {
        (count, kind): memory.nearest[place * len(some) : (place + 1) * len(some)]
        for count, memory in memories.items()
        for place, kind in enumerate(changes)
    }


@pytest.mark.parametrize("count", [20, 60])
@pytest.mark.parametrize("kind", [*ALWAYS, *NEARLY])
def test_copies_are_found_with_few_and_many_training_pictures(kind, count, found):
    right = [each.copy and each.number == i for i, each in enumerate(found[count, kind])]
    assert sum(right) >= (6 if kind in ALWAYS else 5)


def test_training_pictures_that_are_shown_as_drawn_are_exact(images, training):
    few = first(training, 20)
    turned = ImageSignatures(few.features[::-1], few.hashes[::-1], few.reduced[::-1])
    found = memorisation(turned, training)
    assert found.copies == found.exact == 20
    assert [each.number for each in found.nearest] == list(range(20))[::-1]


@pytest.mark.parametrize("count", [20, 60])
def test_new_drawings_of_the_same_hand_are_no_copies(looked_at, training, count):
    new = looked_at([draw("pokemon", seed).image for seed in NEW])
    found = memorisation(new, first(training, count))
    assert found.copies <= 2 and found.exact == 0 and found.by_chance > 0.01


def test_three_of_64_are_copies_by_the_exact_binomial_test_and_one_exact_copy_is_enough():
    new, copy, exact = (
        NearestImage(0, 0.2, 20, False), NearestImage(0, 0.1, 9, True),
        NearestImage(0, 0.0, 0, True, 1.0, 1.0),
    )  # fmt: skip
    three = Memorisation((copy,) * 3 + (new,) * 61)
    none = (1 - SHARE) ** 64
    one = 64 * SHARE * (1 - SHARE) ** 63
    two = 64 * 63 / 2 * SHARE**2 * (1 - SHARE) ** 62
    assert three.by_chance == pytest.approx(1 - none - one - two, rel=1e-6) and (
        three.by_chance < 0.01
    )
    assert Memorisation((copy,) + (new,) * 63).by_chance > 0.01
    assert Memorisation((exact,) + (new,) * 63).by_chance == 0


def test_the_closest_come_first_and_copies_before_them(looked_at, training):
    some = [draw("pokemon", seed).image for seed in (NEW[0], NEW[1], 7, NEW[2])]
    found = memorisation(looked_at(some), training)
    assert found.closest[0] == 2 and found.nearest[2].copy and found.nearest[2].number == 7
    likeness = [found.nearest[i].likeness for i in found.closest[1:]]
    assert likeness == sorted(likeness, reverse=True)


def test_training_pictures_that_are_there_twice_do_not_hide_copies(training, looked_at, images):
    some = first(training, 40)
    twice = ImageSignatures(
        np.concatenate([some.features] * 2), some.hashes * 2, np.concatenate([some.reduced] * 2)
    )
    mirrored = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images[:5]]
    found = memorisation(looked_at(mirrored), twice)
    assert found.copies == 5 and found.can_be_told


def test_where_training_pictures_are_all_alike_a_copy_must_be_liker_still(looked_at):
    """Balls that differ in where a dot is."""

    def ball(number: int) -> Image.Image:
        image = Image.new("RGB", (128, 128), "white")
        pen = ImageDraw.Draw(image)
        pen.ellipse((14, 14, 114, 114), "yellow", "black", 4)
        x, y = 30 + number * 29 % 68, 35 + number * 17 % 58
        pen.ellipse((x - 4, y - 4, x + 4, y + 4), "black")
        return image

    known, new = looked_at([ball(i) for i in range(0, 40, 2)]), looked_at([ball(9), ball(21)])
    found = memorisation(new, known)
    assert found.near_likeness > LIKE and found.share > SHARE
    assert (found.near_distance, found.near_bits) == EXACT and found.exact == 0


def test_where_training_pictures_repeat_each_other_nothing_is_called_memorised(looked_at):
    """One drawing with a grain, as the frames of a film have."""
    drawing, rng = draw("pokemon", 5).image, np.random.default_rng(0)
    known = looked_at([noisy(drawing, rng) for _ in range(20)])
    found = memorisation(looked_at([noisy(drawing, rng) for _ in range(4)]), known)
    assert found.copies == 4 and found.repeated == 1 and not found.can_be_told
    honest = memorisation(looked_at([draw("pokemon", NEW[0]).image]), known)
    assert honest.copies == 0


def test_one_training_picture_cannot_say_what_is_near(training):
    with pytest.raises(ValueError, match="two training pictures"):
        memorisation(training, first(training, 1))


def test_two_training_pictures_are_enough(training):
    found = memorisation(first(training, 1), first(training, 2))
    assert found.copies == 1 and found.nearest[0].number == 0


@pytest.mark.parametrize("colour", ["white", "red", (250, 251, 249)])
def test_a_picture_of_one_colour_or_nearly_is_blank(colour):
    blank = np.asarray(Image.new("RGB", (128, 128), colour), float)
    grain = blank + np.random.default_rng(0).normal(0, 1, blank.shape)
    for pixels in (blank, grain.clip(0, 255)):
        assert is_blank(reduced(Image.fromarray(pixels.astype(np.uint8))))
    assert not is_blank(reduced(draw("pokemon", 0).image))
