"""Draws captioned scenes: what the base model learns from. A drawing is a function of its seed.

One thing or several of it, two things one beside or above the other, or creatures in the plain
look; in colours, sizes and on backgrounds that the captions name. Some combinations are held out:
no scene for training shows them, so that a model can be asked for what it has never seen.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from random import Random

import numpy as np
from PIL import Image

from bundled.canvas import BACKGROUNDS, PALETTE, SIZE, lighter, vary
from bundled.creatures import Creature
from bundled.icons import Icons
from bundled.layout import WHOLE, Box, boxes, paste, spread
from bundled.pixels import lab
from bundled.shapes import Shape
from bundled.words import (
    RELATIONS,
    background_phrase,
    creature_caption,
    creatures_caption,
    noun_phrase,
    opened,
    short_creature,
)

HELD_OUT_SHARE = 25  # one combination in so many
HELD_OUT_SEEDS = range(800_000_000, 801_000_000)  # scenes for judging alone
CONTRAST = 30  # least distance in L*a*b* between a thing and its background

# What a scene shows, and how often. Two things are the hardest to learn.
KINDS = {"one": 24, "several": 10, "two": 46, "creature": 12, "creatures": 3, "beside": 4,
         "shape": 1}  # fmt: skip
VIVID = {
    name: lighter(PALETTE[name], 0.12)
    for name in ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink",
                 "brown", "gray", "black")
}  # fmt: skip
GROUNDS = BACKGROUNDS | VIVID


@dataclass(frozen=True)
class Caption:
    """Words that are true of a picture, and what they say, as values of named slots."""

    text: str
    facts: dict[str, str]


@dataclass(frozen=True)
class Drawn:
    """A picture, RGB, 128 x 128, and captions of it."""

    image: Image.Image
    told: tuple[Caption, ...]

    @property
    def captions(self) -> tuple[str, ...]:
        return tuple(caption.text for caption in self.told)


@dataclass(frozen=True)
class Item:
    """So many of a thing, in a colour: None where it has its own."""

    thing: int  # its number among the icons
    colour: str | None = None
    count: int = 1
    size: str = ""  # "", "small" or "big"

    def shown(self, icons: Icons) -> str | None:
        """The name of the colour that it has in the picture, if there is one."""
        return self.colour or icons.things[self.thing].colour

    def told(self, icons: Icons, rng: Random) -> Caption:
        """Its phrase. A changed colour is nearly always told, a thing's own one now and then."""
        names = icons.things[self.thing].names
        colour = self.shown(icons) if rng.random() < (0.96 if self.colour else 0.25) else None
        facts = {"thing": names[0], "count": str(self.count)}
        if colour:
            facts["colour"] = colour
        return Caption(noun_phrase(names, self.count, self.size, colour, rng), facts)


@dataclass(frozen=True)
class Scene:
    """One item, or two of which the first is left of or above the second."""

    items: tuple[Item, ...]
    relation: str | None  # "beside" or "above"
    background: str

    def held_out(self, icons: Icons) -> bool:
        """Whether some combination in it is kept from training: a thing and its colour, a thing
        and its count, or two things in their places."""
        names = [icons.things[item.thing].names[0] for item in self.items]
        told = [f"{item.colour} {name}" for item, name in zip(self.items, names, strict=True)
                if item.colour]  # fmt: skip
        told += [f"{item.count} {name}" for item, name in zip(self.items, names, strict=True)
                 if item.count > 1]  # fmt: skip
        if self.relation:
            told.append(f"{names[0]} {self.relation} {names[1]}")
        return any(kept_out(combination) for combination in told)

    def draw(self, icons: Icons, rng: Random) -> Image.Image:
        """Paint it: RGB, 128 x 128."""
        canvas = Image.new("RGB", (SIZE, SIZE), ground(self.background, rng))
        for item, box in zip(self.items, boxes(self.relation, rng), strict=True):
            picture = icons.picture(item.thing, item.colour)
            if rng.random() < 0.15 and item.size == "":
                picture = picture.rotate(rng.uniform(-14, 14), Image.Resampling.BICUBIC)
            for place in spread(box, item.count, rng):
                paste(canvas, picture, place, item.size, rng)
        return canvas

    def caption(self, icons: Icons, rng: Random) -> Caption:
        """What is there, in words: nearly always all of it."""
        told = [item.told(icons, rng) for item in self.items]
        return placed_caption(told, self.relation, self.background, rng)


def placed_caption(
    told: list[Caption], relation: str | None, background: str, rng: Random
) -> Caption:
    """The caption of one thing, or of two with the places that they have; `told` in their order."""
    if not relation:
        (only,) = told
        facts = {f"first {name}": value for name, value in only.facts.items()} | {"places": "one"}
        return Caption(opened(only.text, rng) + background_phrase(background, rng), facts)
    places = relation if rng.random() < 0.75 else "any"
    facts = {"places": places}
    if places != "any":  # else the words do not say which one is where
        facts |= {
            f"{order} {name}": value
            for order, one in zip(("first", "second"), told, strict=True)
            for name, value in one.facts.items()
        }
    text = rng.choice(RELATIONS[places]).format(*(one.text for one in told))
    return Caption(opened(text, rng) + background_phrase(background, rng), facts)


def kept_out(combination: str) -> bool:
    """Whether a combination is held out: a function of its words, the same in every version."""
    return zlib.crc32(combination.encode()) % HELD_OUT_SHARE == 0


def random_scene(icons: Icons, kind: str, rng: Random) -> Scene:
    """A scene of `kind` ("one", "several" or "two"), held out or not."""
    if kind == "two":
        items = (random_item(icons, rng, 0.45), random_item(icons, rng, 0.45))
        if rng.random() < 0.15:
            items = (replace(items[0], count=2), items[1])
        relation = rng.choice(("beside", "beside", "above"))
    else:
        item, relation = random_item(icons, rng, 0.4), None
        if kind == "several":
            item = replace(item, count=rng.choice((2, 2, 3, 3)))
        else:
            item = replace(item, size=rng.choice(("", "", "", "small", "big")))
        items = (item,)
    return Scene(items, relation, random_background(icons, items, rng))


def random_item(icons: Icons, rng: Random, painted: float) -> Item:
    thing = rng.randrange(len(icons.things))
    if icons.things[thing].paintable and rng.random() < painted:
        own = icons.things[thing].colour
        return Item(thing, rng.choice([name for name in PALETTE if name != own]))
    return Item(thing)


def random_background(icons: Icons, items: tuple[Item, ...], rng: Random) -> str:
    """White, pale or vivid; such that all items stand out."""
    fitting = [name for name in GROUNDS if all(stands_out(icons, item, name) for item in items)]
    groups = [[name for name in fitting if name in group]
              for group in (("white",), BACKGROUNDS, VIVID)]  # fmt: skip
    groups = [group for group in groups for _ in range(2) if group] or [["light gray"]]
    return rng.choice(rng.choice(groups))


def stands_out(icons: Icons, item: Item, background: str) -> bool:
    mean = icons.things[item.thing].mean
    if item.colour:
        mean = lab_of(PALETTE[item.colour])
    return math.dist(lab_of(GROUNDS[background]), mean) >= CONTRAST


@cache
def lab_of(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    """The L*a*b* of a colour of the palette."""
    return tuple(lab(np.array([colour], dtype=float))[0].tolist())


def ground(name: str, rng: Random) -> tuple[int, int, int]:
    """A background's colour: white is white, another one never twice the same."""
    return GROUNDS[name] if name == "white" else vary(GROUNDS[name], rng, 5)


def draw_scene(icons: Icons, seed: int, captions: int = 1) -> Drawn:
    """The drawing number `seed` for training: nothing held out is in it."""
    paint, caption = _scene(icons, seed)
    image = paint()
    return Drawn(image, tuple(caption() for _ in range(captions)))


def draw_second(icons: Icons, seed: int, captions: int = 1) -> Drawn:
    """One thing, several or two in the second look, which half of the captions name."""
    rng = Random(f"second {seed}")
    kind = rng.choice(("one", "one", "one", "several", "two"))
    scene = random_scene(icons, kind, rng)
    image = scene.draw(icons, rng)
    several = [scene.caption(icons, rng) for _ in range(captions)]
    named = [f"a 3d picture: {each.text}" if i % 2 else each.text for i, each in enumerate(several)]
    return Drawn(image, tuple(Caption(text, {}) for text in named))


def scene_captions(icons: Icons, seed: int, count: int) -> tuple[Caption, ...]:
    """Captions of scene number `seed`, which is not painted; not those of its drawing."""
    _, caption = _scene(icons, seed)
    return tuple(caption() for _ in range(count))


def _scene(icons: Icons, seed: int) -> tuple[Callable, Callable]:
    """What paints scene number `seed`, once, and what captions it, anew at each call."""
    rng = Random(f"scene {seed}")
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    return KIND_OF.get(kind, _things)(icons, kind, rng)


def _things(icons: Icons, kind: str, rng: Random):
    scene = random_scene(icons, kind, rng)
    while scene.held_out(icons):
        scene = random_scene(icons, kind, rng)
    return lambda: scene.draw(icons, rng), lambda: scene.caption(icons, rng)


def _shape(icons: Icons, kind: str, rng: Random):
    """A plain shape, or a house or castle with a roof of its own colour."""
    shape = Shape.random(rng)
    return lambda: shape.draw(rng), lambda: Caption(shape.caption(rng), {"places": "one"})


def _creature(icons: Icons, kind: str, rng: Random):
    creature = Creature.random(rng)
    return (
        lambda: creature.draw("plain", rng),
        lambda: Caption(*creature_caption(creature, rng)),
    )


def _creatures(icons: Icons, kind: str, rng: Random):
    """Two or three creatures of one kind."""
    creature, count = Creature.random(rng), rng.choice((2, 3))

    def paint() -> Image.Image:
        canvas = Image.new("RGB", (SIZE, SIZE), BACKGROUNDS[creature.background])
        for box in spread(WHOLE, count, rng):
            paste_creature(canvas, creature, box, rng)
        return canvas

    return paint, lambda: Caption(*creatures_caption(creature, count, rng))


def _beside(icons: Icons, kind: str, rng: Random):
    """A creature and a thing, one beside or above the other."""
    creature, first = Creature.random(rng), rng.random() < 0.5
    item = random_item(icons, rng, 0.4)
    scene = Scene((item,), None, creature.background)
    while scene.held_out(icons) or not stands_out(icons, item, creature.background):
        item = random_item(icons, rng, 0.4)
        scene = replace(scene, items=(item,))
    placed = replace(scene, relation=rng.choice(("beside", "above")))

    def paint() -> Image.Image:
        places = boxes(placed.relation, rng)
        canvas = Image.new("RGB", (SIZE, SIZE), BACKGROUNDS[creature.background])
        paste_creature(canvas, creature, places[not first], rng)
        paste(canvas, icons.picture(item.thing, item.colour), places[first], "", rng)
        return canvas

    def caption() -> Caption:
        told = [Caption(*short_creature(creature, rng)), item.told(icons, rng)]
        told = told if first else told[::-1]
        return placed_caption(told, placed.relation, creature.background, rng)

    return paint, caption


def paste_creature(canvas: Image.Image, creature: Creature, box: Box, rng: Random) -> None:
    """The whole drawing of a creature, which has the canvas's background, into a box."""
    left, top, right, bottom = (part * SIZE for part in box)
    side = int(min(right - left, bottom - top))
    small = creature.draw("plain", rng).resize((side, side), Image.Resampling.LANCZOS)
    canvas.paste(small, (round((left + right - side) / 2), round((top + bottom - side) / 2)))


KIND_OF = {"creature": _creature, "creatures": _creatures, "beside": _beside, "shape": _shape}
