"""Copies are found, and what is only alike is not called one."""

import numpy as np
import pytest
from PIL import Image

from bundled.creatures import draw
from scoring.memorisation import memorisation, perceptual_hash
from scoring.scorer import BUNDLED, Scorer

TRAINING, NEW = range(120), range(90_000_000, 90_000_060)


@pytest.fixture(scope="module")
def looked_at():
    """`looked_at(images)` gives features and hashes by the bundled scorer."""
    scorer = Scorer.load(BUNDLED)
    return lambda images: (scorer.features(images), [perceptual_hash(image) for image in images])


@pytest.fixture(scope="module")
def training(looked_at):
    return looked_at([draw("pokemon", seed).image for seed in TRAINING])


def test_training_pictures_that_are_shown_as_drawn_are_all_found(looked_at, training):
    copies = [draw("pokemon", seed).image for seed in list(TRAINING)[::-1]]
    found = memorisation(*looked_at(copies), *training)
    assert found.copies == found.exact == len(TRAINING)
    assert [each.number for each in found.nearest] == list(TRAINING)[::-1]


def test_copies_of_another_size_and_quality_are_found(looked_at, training, tmp_path):
    copies = []
    for seed in list(TRAINING)[:40]:
        path = tmp_path / f"{seed}.jpg"
        draw("pokemon", seed).image.resize((160, 160)).save(path, quality=90)
        copies.append(Image.open(path).convert("RGB"))
    assert memorisation(*looked_at(copies), *training).copies >= 38


def test_new_drawings_of_the_same_hand_are_no_copies(looked_at, training):
    found = memorisation(*looked_at([draw("pokemon", seed).image for seed in NEW]), *training)
    assert found.copies <= 2 and found.exact == 0 and found.by_chance > 0.01


def test_the_closest_come_first_and_copies_before_them(looked_at, training):
    images = [draw("pokemon", seed).image for seed in (NEW[0], NEW[1], 7, NEW[2])]
    found = memorisation(*looked_at(images), *training)
    assert found.closest[0] == 2 and found.nearest[2].copy and found.nearest[2].number == 7
    distances = [found.nearest[i].distance for i in found.closest[1:]]
    assert distances == sorted(distances)


def test_training_pictures_that_are_there_twice_do_not_hide_copies():
    rows = np.random.default_rng(0).normal(0, 1, (40, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    twice, hashes = np.concatenate([rows, rows]), [*range(40), *range(40)]
    found = memorisation(rows[:5], list(range(5)), twice, hashes)
    assert found.copies == 5


def test_one_training_picture_cannot_say_what_is_near():
    with pytest.raises(ValueError, match="two training pictures"):
        memorisation(np.eye(2), [0, 1], np.eye(2)[:1], [0])


def test_of_few_training_pictures_only_the_same_picture_is_a_copy(looked_at):
    """The nearest 1 % of ten pictures is one pair; others would be called copies by chance."""
    few = looked_at([draw("pokemon", seed).image for seed in TRAINING[:10]])
    images = [draw("pokemon", seed).image for seed in (*NEW, 3)]
    found = memorisation(*looked_at(images), *few)
    assert found.copies == found.exact == 1 and found.nearest[-1].copy
