"""The benchmark of things: its cases ask for what was held out, and its sums are right."""

from random import Random

import numpy as np
import pytest
from icons import stand_ins

from benchmarks import bundled_things
from benchmarks.bundled_things import Case, cases, judged, scene_of
from benchmarks.things_judge import OWN, PLACES, cut
from bundled.icons import Icons, Thing
from bundled.scenes import Item, kept_out


@pytest.fixture(scope="module")
def icons() -> Icons:
    """Sixty things of three shapes."""
    few = stand_ins()
    things = tuple(Thing((f"thing {i}",), None, True, few.things[i % 3].mean) for i in range(60))
    return Icons(things, few.pictures[np.arange(60) % 3], few.parts[np.arange(60) % 3])


class Seer:
    """A judge that knows what was drawn, but for pictures that it is told to mistake."""

    def __init__(self, several, wrong=()):
        self.several, self.wrong = several, wrong

    def things(self, images, parts):
        return [self._seen(image, part) for image, part in zip(images, parts, strict=True)]

    def _seen(self, number, part):
        scene = self.several[number].scene
        if part not in PLACES[scene.relation]:
            return -2, OWN  # half of each thing
        item = scene.items[part in ("right", "bottom")]
        return (-1 if number in self.wrong else item.thing), item.colour or OWN

    def counts(self, images):
        return [one.scene.items[0].count + (i in self.wrong) for i, one in enumerate(self.several)]


def test_each_thing_is_asked_for_and_combinations_are_held_out_ones(icons):
    several = list(cases(icons, 12))
    assert [case.scene.items[0].thing for case in several if case.kind == "thing"] == list(
        range(60)
    )
    for case in several:
        items, names = case.scene.items, [f"thing {item.thing}" for item in case.scene.items]
        if case.kind == "colour":
            assert kept_out(f"{items[0].colour} {names[0]}")
        if case.kind == "count" and items[0].count > 1:
            assert kept_out(f"{items[0].count} {names[0]}")
        if case.kind == "two":
            assert kept_out(f"{names[0]} {case.scene.relation} {names[1]}")


def test_a_prompt_says_what_the_scene_holds(icons):
    prompts = [
        Case("two", scene_of(icons, (Item(1), Item(2)), "beside")),
        Case("colour", scene_of(icons, (Item(3, "orange"),), None)),
        Case("count", scene_of(icons, (Item(4, count=3),), None)),
    ]
    assert [case.prompt(icons) for case in prompts] == [
        "a thing 1 left of a thing 2", "an orange thing 3", "three thing 4s",
    ]  # fmt: skip


def test_a_judge_that_sees_all_gives_all_and_one_mistake_counts_as_one(icons):
    several = list(cases(icons, 10))
    pictures = list(range(len(several)))
    assert set(judged(Seer(several), several, pictures).values()) == {1.0}
    kinds = [case.kind for case in several]
    wrong = {kinds.index(kind) for kind in ("colour", "two", "count")}
    found = judged(Seer(several, wrong), several, pictures)
    assert found["thing"] == 1.0 and found["count"] == found["two things"] == 0.9


def test_a_part_of_a_picture_is_cut_to_what_it_shows():
    icons = stand_ins()
    scene = scene_of(icons, (Item(0), Item(1)), "beside")
    image = scene.draw(icons, Random(0))
    left, right = (np.asarray(cut(image, part))[32, 32] for part in ("left", "right"))
    assert left.argmax() == 0 and right.argmax() == 2  # the red ball, the blue box
    whole = np.asarray(cut(image, "whole"))
    assert np.abs(whole[0, 0].astype(int) - np.asarray(image)[0, 0]).max() <= 3


def test_everyday_prompts_are_forty_five_different_ones():
    prompts = bundled_things.EVERYDAY.read_text(encoding="utf-8").splitlines()
    assert len(prompts) == len(set(prompts)) == 45


def test_what_the_reference_run_rehearses_is_neither_what_it_learns_nor_what_it_is_asked():
    file = bundled_things.EVERYDAY.with_name("prior_prompts.txt")
    rehearsed, asked = (path.read_text().splitlines() for path in (file, bundled_things.EVERYDAY))
    assert len(set(rehearsed)) == len(rehearsed) >= 400
    assert not set(rehearsed) & set(asked)
    assert not any(word in line for line in rehearsed for word in ("creature", "monster"))
