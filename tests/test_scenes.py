"""What the base model learns from: scenes are a function of their seed, and captions are true."""

import re
from random import Random

import numpy as np
import pytest
from icons import stand_ins
from scipy import ndimage

from bundled import icons, scenes
from bundled.canvas import PALETTE
from bundled.icons import Icons, Thing
from bundled.pixels import lab, rgb
from bundled.scenes import (
    GROUNDS,
    Item,
    Scene,
    draw_scene,
    kept_out,
    random_scene,
    scene_captions,
)
from bundled.words import article, noun_phrase, plural
from core.errors import UserError

LEFT_OR_ABOVE = re.compile(r"left of|on the left of|above|over|on top of")
RIGHT_OR_BELOW = re.compile(r"right of|on the right of|below|under|beneath")


@pytest.fixture(scope="module")
def known() -> Icons:
    return stand_ins()


def objects_in(picture) -> list[tuple[float, float, np.ndarray]]:
    """Centre and mean colour of each thing in a picture: x, y, RGB."""
    pixels = np.asarray(picture, dtype=float)
    shown = np.abs(pixels - pixels[0, 0]).max(axis=2) > 25
    labels, count = ndimage.label(ndimage.binary_opening(shown))
    found = []
    for number in range(1, count + 1):
        y, x = np.nonzero(labels == number)
        found.append((x.mean(), y.mean(), np.median(pixels[labels == number], axis=0)))
    return found


def nearest(colour: np.ndarray) -> str:
    names = list(PALETTE)
    apart = lab(np.array([PALETTE[name] for name in names], dtype=float)) - lab(colour[None])
    return names[np.linalg.norm(apart, axis=1).argmin()]


def test_a_seed_gives_the_same_scene_and_another_seed_another(known):
    once, again, other = (draw_scene(known, seed, captions=3) for seed in (5, 5, 6))
    assert np.array_equal(once.image, again.image) and once.told == again.told
    assert not np.array_equal(once.image, other.image)
    assert once.image.size == (128, 128) and once.image.mode == "RGB"


def test_a_picture_shows_as_many_as_the_caption_says(known):
    for seed in range(120):
        rng = Random(seed)
        scene = random_scene(known, "several", rng)
        count, text = scene.items[0].count, scene.caption(known, rng).text
        assert len(objects_in(scene.draw(known, rng))) == count, (seed, scene)
        assert {2: "two", 3: "three"}[count] in text


def test_two_things_stand_where_the_caption_says(known):
    """The red ball is told from the blue box by its colour; the words name their places."""
    told = 0
    for seed in range(200):
        rng = Random(seed)
        pair = rng.sample([0, 1], 2)
        relation = rng.choice(("beside", "above"))
        scene = Scene(tuple(Item(thing) for thing in pair), relation, "white")
        text = scene.caption(known, rng).text
        places = {nearest(colour): (x, y) for x, y, colour in objects_in(scene.draw(known, rng))}
        axis = 0 if relation == "beside" else 1
        ball, box = places["red"][axis], places["blue"][axis]
        ball_first = min(text.find(name) % 999 for name in ("ball", "globe")) < text.find("box")
        if LEFT_OR_ABOVE.search(text) or "on the left and" in text:
            assert (ball < box) == ball_first, text
            told += 1
        elif RIGHT_OR_BELOW.search(text):
            assert (ball > box) == ball_first, text
            told += 1
    assert told > 100


def test_a_thing_has_the_colour_that_is_named(known):
    right = []
    for seed in range(100):
        rng = Random(seed)
        colour = rng.choice(list(PALETTE))
        item = Item(rng.choice([0, 1, 2]), colour)
        background = scenes.random_background(known, (item,), rng)
        scene = Scene((item,), None, background)
        (found,) = objects_in(scene.draw(known, rng))
        caption = scene.caption(known, rng)
        if "first colour" in caption.facts:
            assert caption.facts["first colour"] == colour and colour in caption.text
        right.append(nearest(found[2]) == colour)
    assert np.mean(right) >= 0.97


def test_nothing_is_drawn_on_a_background_that_hides_it(known):
    for seed in range(300):
        rng = Random(seed)
        scene = random_scene(known, "one", rng)
        item = scene.items[0]
        mean = known.things[item.thing].mean
        if item.colour:
            mean = lab(np.array([PALETTE[item.colour]], dtype=float))[0]
        behind = lab(np.array([GROUNDS[scene.background]], dtype=float))[0]
        assert np.linalg.norm(behind - mean) >= scenes.CONTRAST


def test_what_is_held_out_is_in_no_drawing_for_training_and_is_a_few_per_cent():
    things = [Thing((f"thing {i}",), None, True, stand_ins().things[0].mean) for i in range(40)]
    pixels, part = stand_ins().pictures[:1], stand_ins().parts[:1]
    many = Icons(tuple(things), np.repeat(pixels, 40, axis=0), np.repeat(part, 40, axis=0))
    for seed in range(1500):
        for caption in scene_captions(many, seed, 1):
            for order in ("first", "second"):
                thing, colour, count = (
                    caption.facts.get(f"{order} {name}") for name in ("thing", "colour", "count")
                )
                if thing and thing != "creature":
                    assert not (colour and kept_out(f"{colour} {thing}"))
                    assert count == "1" or not kept_out(f"{count} {thing}")
    rng = Random(0)
    drawn = [random_scene(many, "two", rng).held_out(many) for _ in range(2000)]
    assert 0.02 < np.mean(drawn) < 0.2


def test_a_person_never_changes_colour(known):
    items = [scenes.random_item(known, Random(seed), 1.0) for seed in range(200)]
    people = [item for item in items if known.things[item.thing].names == ("person",)]
    assert len(people) > 20 and all(item.colour is None for item in people)


def test_shades_survive_a_change_of_colour():
    pixels = np.array([[200, 40, 40], [150, 20, 20]], dtype=np.uint8)
    mean = tuple(lab(pixels.astype(float)).mean(0))
    light, dark = lab(icons.painted(pixels, mean, PALETTE["blue"]).astype(float))
    assert light[0] > dark[0] + 5
    assert nearest(icons.painted(pixels, mean, PALETTE["blue"]).mean(0)) == "blue"


def test_lab_and_back_gives_the_same_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (500, 3))
    assert np.abs(rgb(lab(pixels.astype(float))).astype(int) - pixels).max() <= 1


def test_each_thing_has_names_of_its_own():
    listed = icons.listed()
    names = [name for _, several in listed for name in several]
    assert len(names) == len(set(names)) and len({label for label, _ in listed}) == len(listed)
    assert len(listed) >= 850 and all(name == name.strip() and name for name in names)


@pytest.mark.parametrize(
    ("one", "several"),
    [
        ("fox", "foxes"), ("mouse", "mice"), ("glass of milk", "glasses of milk"),
        ("cherries", "cherries"), ("bow and arrow", "bow and arrows"),
        ("fire truck", "fire trucks"),
        ("house with a tree", "houses with a tree"), ("strawberry", "strawberries"),
        ("loaf of bread", "loaves of bread"), ("toy", "toys"),
    ],
)  # fmt: skip
def test_plurals_are_english(one, several):
    assert plural(one) == several


def test_articles_follow_the_sound():
    assert [article(word) for word in ("apple", "unicorn", "umbrella", "ufo", "hourglass")] == [
        "an", "a", "an", "a", "an",
    ]  # fmt: skip
    assert noun_phrase(("cherries",), 1, "", "red", Random(0)) == "red cherries"


def test_missing_packages_are_one_sentence_that_says_what_to_run(tmp_path):
    with pytest.raises(UserError, match=r"npm install --ignore-scripts @iconify-json/fluent"):
        icons.build(tmp_path, tmp_path / "icons")


def test_icons_come_back_from_disk_as_they_were(known, tmp_path):
    known.save(tmp_path)
    again = Icons.load(tmp_path)
    assert again.things == known.things and np.array_equal(again.pictures, known.pictures)
