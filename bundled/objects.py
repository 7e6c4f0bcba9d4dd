"""Simple things in flat colours: what the bundled base model knows beside creatures.

Each function paints one thing in its colour around (0, 0), within about 0.4 of it; `Placed` puts it
on the canvas. `THINGS` names them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from PIL import Image

from bundled.canvas import (
    BACKGROUNDS,
    INK,
    PALETTE,
    Canvas,
    Colour,
    Curve,
    darker,
    ellipse,
    lighter,
    mirrored,
    placed,
    smooth,
    vary,
)

WHITE, BROWN, GREEN = (250, 250, 250), (138, 92, 58), (84, 170, 74)
RED, YELLOW, SKY, SAND = (214, 58, 54), (250, 208, 60), (150, 208, 240), (240, 214, 160)


@dataclass(frozen=True)
class Placed:
    """A canvas whose curves are scaled and moved."""

    canvas: Canvas
    x: float
    y: float
    scale: float

    def shape(self, curve: Curve, colour: Colour) -> None:
        self.canvas.shape(placed(curve, self.x, self.y, self.scale), colour)

    def line(self, curve: Curve, colour: Colour, width: float) -> None:
        self.canvas.line(placed(curve, self.x, self.y, self.scale), colour, width * self.scale)

    def dots(self, points: list[tuple[float, float]], radius: float, colour: Colour) -> None:
        for x, y in points:
            self.shape(ellipse(x, y, radius, radius), colour)

    def eyes(self, x: float, y: float, gap: float = 0.0, radius: float = 0.03) -> None:
        self.dots([(x, y)] if not gap else [(x - gap, y), (x + gap, y)], radius, INK)


def box(left: float, top: float, right: float, bottom: float) -> Curve:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def polygon(corners: int, radius: float, inner: float | None = None) -> Curve:
    """A regular polygon, or a star where `inner` is the radius of its notches; one corner up."""
    points = corners * (1 if inner is None else 2)
    radii = (radius, radius if inner is None else inner)
    turns = [(radii[i % 2], i * math.tau / points) for i in range(points)]
    return [(radius * math.sin(angle), -radius * math.cos(angle)) for radius, angle in turns]


def circle(on: Placed, colour: Colour) -> None:
    on.shape(ellipse(0, 0, 0.34, 0.34), colour)


def square(on: Placed, colour: Colour) -> None:
    on.shape(box(-0.3, -0.3, 0.3, 0.3), colour)


def triangle(on: Placed, colour: Colour) -> None:
    on.shape([(0, -0.34), (0.36, 0.28), (-0.36, 0.28)], colour)


def star(on: Placed, colour: Colour) -> None:
    on.shape(polygon(5, 0.38, 0.16), colour)


def heart(on: Placed, colour: Colour) -> None:
    half = [(0, 0.34), (-0.26, 0.08), (-0.35, -0.12), (-0.24, -0.28), (-0.08, -0.27), (0, -0.15)]
    half = smooth(half, closed=False)
    on.shape([*half, *mirrored(half[::-1], 0)], colour)


def diamond(on: Placed, colour: Colour) -> None:
    on.shape([(0, -0.38), (0.27, 0), (0, 0.38), (-0.27, 0)], colour)


def ring(on: Placed, colour: Colour) -> None:
    curve = ellipse(0, 0, 0.27, 0.27)
    on.line([*curve, curve[0]], colour, 0.12)


def moon(on: Placed, colour: Colour) -> None:
    outer = [(0.13, -0.34), (-0.19, -0.28), (-0.33, 0), (-0.19, 0.28), (0.13, 0.34)]
    inner = [(0.13, 0.34), (-0.05, 0.2), (-0.11, 0), (-0.05, -0.2), (0.13, -0.34)]
    on.shape([*smooth(outer, closed=False), *smooth(inner, closed=False)], colour)


def apple(on: Placed, colour: Colour) -> None:
    half = [(0, -0.16), (-0.14, -0.22), (-0.30, -0.08), (-0.26, 0.18), (-0.12, 0.33), (0, 0.29)]
    half = smooth(half, closed=False)
    on.shape([*half, *mirrored(half[::-1], 0)], colour)
    on.line([(0, -0.16), (0.03, -0.33)], BROWN, 0.045)
    on.shape(placed(ellipse(0.11, 0, 0.11, 0.05), 0.03, -0.26, 1, -20), GREEN)


def pear(on: Placed, colour: Colour) -> None:
    half = [(0, -0.24), (-0.11, -0.2), (-0.13, -0.04), (-0.25, 0.12), (-0.18, 0.32), (0, 0.35)]
    half = smooth(half, closed=False)
    on.shape([*half, *mirrored(half[::-1], 0)], colour)
    on.line([(0, -0.23), (0.04, -0.36)], BROWN, 0.045)


def cherries(on: Placed, colour: Colour) -> None:
    for x, y in ((-0.16, 0.18), (0.17, 0.22)):
        on.line([(x, y), (0.05, -0.3)], GREEN, 0.035)
        on.shape(ellipse(x, y, 0.15, 0.15), colour)
    on.shape(placed(ellipse(0.11, 0, 0.13, 0.06), 0.05, -0.3, 1, 12), GREEN)


def banana(on: Placed, colour: Colour) -> None:
    outer = smooth([(-0.33, -0.14), (-0.2, 0.17), (0.1, 0.25), (0.35, 0.02)], closed=False)
    inner = smooth([(0.32, -0.05), (0.08, 0.08), (-0.1, 0.02), (-0.24, -0.2)], closed=False)
    on.shape([*outer, *inner], colour)
    on.shape([(-0.34, -0.13), (-0.24, -0.19), (-0.3, -0.28), (-0.36, -0.25)], BROWN)


def strawberry(on: Placed, colour: Colour) -> None:
    on.shape(
        smooth([(0, 0.36), (-0.22, 0.1), (-0.26, -0.14), (0, -0.2), (0.26, -0.14), (0.22, 0.1)]),
        colour,
    )
    on.dots(
        [(-0.12, -0.04), (0.1, -0.06), (0, 0.08), (-0.08, 0.18), (0.1, 0.14)],
        0.022,
        lighter(colour, 0.7),
    )
    on.shape(placed(polygon(5, 0.2, 0.08), 0, -0.2), GREEN)


def melon(on: Placed, colour: Colour) -> None:
    for radius, paint in ((0.38, GREEN), (0.34, WHITE), (0.30, colour)):
        on.shape([(radius * math.cos(a), -0.12 + radius * math.sin(a)) for a in
                  (i * math.pi / 24 for i in range(25))], paint)  # fmt: skip
    on.dots([(-0.15, -0.05), (0, -0.04), (0.15, -0.05), (-0.08, 0.06), (0.08, 0.06)], 0.02, INK)


def grapes(on: Placed, colour: Colour) -> None:
    on.line([(0, -0.2), (0.03, -0.37)], BROWN, 0.045)
    for row, count in enumerate((4, 3, 2, 1)):
        for i in range(count):
            paint = colour if (row + i) % 2 else lighter(colour, 0.2)
            on.dots([((i - (count - 1) / 2) * 0.16, -0.16 + row * 0.14)], 0.095, paint)


def wheels(on: Placed, places: tuple[float, ...], y: float) -> None:
    for x in places:
        on.dots([(x, y)], 0.09, INK)
        on.dots([(x, y)], 0.04, (190, 190, 196))


def car(on: Placed, colour: Colour) -> None:
    on.shape([(-0.2, -0.04), (-0.11, -0.22), (0.13, -0.22), (0.24, -0.04)], colour)
    on.shape([(-0.13, -0.05), (-0.08, -0.17), (0, -0.17), (0, -0.05)], SKY)
    on.shape([(0.04, -0.05), (0.04, -0.17), (0.11, -0.17), (0.17, -0.05)], SKY)
    on.shape(ellipse(0, 0.06, 0.39, 0.13, 4), colour)
    wheels(on, (-0.21, 0.21), 0.17)


def bus(on: Placed, colour: Colour) -> None:
    on.shape(ellipse(0, -0.02, 0.39, 0.22, 8), colour)
    for left in (-0.32, -0.15, 0.02, 0.19):
        on.shape(box(left, -0.16, left + 0.13, -0.03), SKY)
    wheels(on, (-0.22, 0.22), 0.2)


def truck(on: Placed, colour: Colour) -> None:
    on.shape(box(-0.39, -0.2, 0.1, 0.15), (206, 206, 212))
    on.shape([(0.12, -0.1), (0.27, -0.1), (0.38, 0.03), (0.38, 0.15), (0.12, 0.15)], colour)
    on.shape([(0.17, -0.05), (0.25, -0.05), (0.32, 0.03), (0.17, 0.03)], SKY)
    wheels(on, (-0.24, 0.22), 0.18)


def boat(on: Placed, colour: Colour) -> None:
    on.line([(-0.02, -0.36), (-0.02, 0.12)], BROWN, 0.035)
    on.shape([(0.02, -0.34), (0.3, 0.06), (0.02, 0.06)], WHITE)
    on.shape([(-0.06, -0.26), (-0.06, 0.06), (-0.25, 0.06)], (236, 236, 226))
    on.shape([(-0.36, 0.11), (0.36, 0.11), (0.22, 0.3), (-0.22, 0.3)], colour)


def rocket(on: Placed, colour: Colour) -> None:
    on.shape(smooth([(-0.08, 0.2), (0, 0.4), (0.08, 0.2)]), (255, 160, 50))
    fin = [(-0.11, 0.04), (-0.25, 0.26), (-0.1, 0.2)]
    for curve in (fin, mirrored(fin, 0)):
        on.shape(curve, colour)
    on.shape(
        smooth([(0, -0.38), (-0.13, -0.12), (-0.12, 0.2), (0.12, 0.2), (0.13, -0.12)]),
        (226, 228, 234),
    )
    on.shape(smooth([(0, -0.38), (-0.09, -0.22), (0.09, -0.22)], steps=6), colour)
    on.dots([(0, -0.06)], 0.065, SKY)


def balloon(on: Placed, colour: Colour) -> None:
    for x in (-0.07, 0.07):
        on.line([(x * 2.2, 0.02), (x, 0.26)], BROWN, 0.022)
    on.shape(
        smooth([(0, -0.38), (-0.27, -0.2), (-0.2, 0.05), (0, 0.15), (0.2, 0.05), (0.27, -0.2)]),
        colour,
    )
    on.shape(ellipse(0, -0.11, 0.09, 0.255), lighter(colour, 0.4))
    on.shape(box(-0.09, 0.25, 0.09, 0.37), BROWN)


def house(on: Placed, colour: Colour) -> None:
    on.shape(box(-0.27, -0.06, 0.27, 0.34), SAND)
    on.shape([(-0.36, -0.04), (0, -0.36), (0.36, -0.04)], colour)
    on.shape(box(-0.06, 0.12, 0.09, 0.34), BROWN)
    for left in (-0.22, 0.14):
        on.shape(box(left, 0.02, left + 0.1, 0.12), SKY)


def castle(on: Placed, colour: Colour) -> None:
    on.shape(box(-0.2, -0.06, 0.2, 0.34), (196, 198, 206))
    for x in (-0.25, 0.25):
        on.shape(box(x - 0.09, -0.12, x + 0.09, 0.34), (176, 178, 188))
        on.shape([(x - 0.12, -0.12), (x, -0.36), (x + 0.12, -0.12)], colour)
    on.shape([*ellipse(0, 0.2, 0.09, 0.1)[32:], (0.09, 0.34), (-0.09, 0.34)], BROWN)


def tent(on: Placed, colour: Colour) -> None:
    on.shape([(0, -0.28), (0.38, 0.28), (-0.38, 0.28)], colour)
    on.shape([(0, -0.06), (0.13, 0.28), (-0.13, 0.28)], darker(colour, 0.45))


def cat(on: Placed, colour: Colour) -> None:
    for x in (-0.2, 0.2):
        on.shape([(x * 1.45, 0), (x * 1.35, -0.34), (x * 0.3, -0.2)], colour)
        on.shape([(x * 1.3, -0.1), (x * 1.25, -0.26), (x * 0.75, -0.19)], lighter(colour, 0.5))
    on.shape(ellipse(0, 0.05, 0.31, 0.26), colour)
    on.eyes(0, 0.0, 0.12, 0.042)
    on.shape([(-0.035, 0.08), (0.035, 0.08), (0, 0.12)], (240, 130, 140))
    for y in (0.1, 0.15):
        on.line([(-0.36, y - 0.02), (-0.18, y)], INK, 0.016)
        on.line([(0.36, y - 0.02), (0.18, y)], INK, 0.016)


def rabbit(on: Placed, colour: Colour) -> None:
    for x in (-0.11, 0.11):
        on.shape(ellipse(x, -0.2, 0.07, 0.19), colour)
        on.shape(ellipse(x, -0.2, 0.032, 0.13), lighter(colour, 0.5))
    on.shape(ellipse(0, 0.12, 0.25, 0.22), colour)
    on.eyes(0, 0.07, 0.1, 0.036)
    on.shape(ellipse(0, 0.15, 0.035, 0.026), (240, 130, 140))


def fish(on: Placed, colour: Colour) -> None:
    on.shape([(0.14, 0), (0.37, -0.19), (0.33, 0), (0.37, 0.19)], darker(colour, 0.15))
    on.shape(
        smooth([(-0.36, 0.01), (-0.12, -0.2), (0.2, -0.03), (0.2, 0.03), (-0.12, 0.2)]), colour
    )
    on.shape([(-0.05, 0.02), (0.09, -0.04), (0.09, 0.1)], lighter(colour, 0.4))
    on.eyes(-0.2, -0.05, radius=0.034)


def bird(on: Placed, colour: Colour) -> None:
    for x in (-0.05, 0.06):
        on.line([(x, 0.2), (x, 0.35)], (236, 150, 50), 0.03)
    on.shape([(0.14, 0.05), (0.38, -0.02), (0.36, 0.13)], darker(colour, 0.15))
    on.shape([(-0.24, -0.16), (-0.39, -0.1), (-0.24, -0.05)], (244, 160, 50))
    on.shape(
        smooth(
            [(-0.26, -0.12), (-0.12, -0.28), (0.02, -0.12), (0.24, 0.04), (0.1, 0.24), (-0.16, 0.2)]
        ),
        colour,
    )
    on.shape(placed(ellipse(0, 0, 0.15, 0.08), 0.08, 0.07, 1, 12), darker(colour, 0.2))
    on.eyes(-0.14, -0.14, radius=0.03)


def butterfly(on: Placed, colour: Colour) -> None:
    for curve, paint in (
        (placed(ellipse(0.18, 0, 0.17, 0.13), 0.0, -0.06, 1, -32), colour),
        (placed(ellipse(0.14, 0, 0.13, 0.1), 0.0, 0.06, 1, 38), lighter(colour, 0.25)),
    ):
        on.shape(curve, paint)
        on.shape(mirrored(curve, 0), paint)
    on.dots([(-0.19, -0.17), (0.19, -0.17)], 0.045, lighter(colour, 0.65))
    on.shape(ellipse(0, 0, 0.04, 0.2), INK)
    for x in (-0.1, 0.1):
        on.line([(0, -0.16), (x, -0.33)], INK, 0.018)


def snail(on: Placed, colour: Colour) -> None:
    on.shape(
        smooth([(-0.38, 0.24), (-0.36, -0.08), (-0.26, -0.08), (-0.22, 0.12), (0.36, 0.24)]), SAND
    )
    on.shape(ellipse(0.06, 0.02, 0.21, 0.21), colour)
    spiral = [(0.06 + 0.012 * t * math.cos(t), 0.02 + 0.012 * t * math.sin(t)) for t in
              (i * 0.4 for i in range(30))]  # fmt: skip
    on.line(spiral, darker(colour, 0.35), 0.03)
    for x in (-0.36, -0.27):
        on.line([(-0.31, -0.04), (x, -0.2)], SAND, 0.03)
        on.dots([(x, -0.2)], 0.03, INK)


def ladybug(on: Placed, colour: Colour) -> None:
    on.shape(ellipse(0, -0.19, 0.15, 0.12), INK)
    on.shape(ellipse(0, 0.06, 0.29, 0.28), colour)
    on.line([(0, -0.2), (0, 0.33)], INK, 0.025)
    on.dots([(-0.14, -0.05), (0.14, -0.05), (-0.16, 0.13), (0.16, 0.13)], 0.05, INK)


def turtle(on: Placed, colour: Colour) -> None:
    skin = (150, 200, 110)
    on.shape(ellipse(-0.3, 0.02, 0.1, 0.09), skin)
    for x in (-0.17, 0.17):
        on.shape(ellipse(x, 0.2, 0.07, 0.09), skin)
    on.shape([(-0.28, 0.16), *ellipse(0.02, 0.16, 0.3, 0.36)[32:], (0.32, 0.16)], colour)
    on.dots([(-0.1, 0.02), (0.12, 0.02), (0.02, -0.1)], 0.055, darker(colour, 0.25))
    on.eyes(-0.33, 0.0, radius=0.024)


def tree(on: Placed, colour: Colour) -> None:
    on.shape(box(-0.06, 0.06, 0.06, 0.37), BROWN)
    on.dots([(-0.15, -0.02), (0.15, -0.02), (0, -0.18), (0, 0.02)], 0.18, colour)


def flower(on: Placed, colour: Colour) -> None:
    on.line([(0, -0.08), (0, 0.37)], GREEN, 0.045)
    on.shape(placed(ellipse(0.12, 0, 0.12, 0.05), 0, 0.26, 1, -32), GREEN)
    for i in range(6):
        angle = i * math.tau / 6
        on.dots([(0.15 * math.cos(angle), -0.12 + 0.15 * math.sin(angle))], 0.098, colour)
    on.dots([(0, -0.12)], 0.09, YELLOW if colour[2] > 90 else BROWN)


def mushroom(on: Placed, colour: Colour) -> None:
    on.shape(smooth([(-0.09, -0.02), (-0.12, 0.32), (0.12, 0.32), (0.09, -0.02)]), (244, 230, 206))
    on.shape([(-0.34, 0.02), *ellipse(0, 0.02, 0.34, 0.36)[32:], (0.34, 0.02)], colour)
    on.dots([(-0.17, -0.1), (0.04, -0.2), (0.18, -0.07)], 0.05, WHITE)


def cactus(on: Placed, colour: Colour) -> None:
    for curve in (
        [(-0.22, -0.12), (-0.22, 0.06), (0, 0.08)],
        [(0.22, -0.2), (0.22, -0.02), (0, 0)],
    ):
        on.line(curve, colour, 0.11)
    on.line([(0, -0.28), (0, 0.2)], colour, 0.17)
    on.shape([(-0.19, 0.16), (0.19, 0.16), (0.14, 0.37), (-0.14, 0.37)], (198, 112, 70))


def sun(on: Placed, colour: Colour) -> None:
    on.shape(polygon(12, 0.39, 0.25), lighter(colour, 0.25))
    on.dots([(0, 0)], 0.22, colour)


def cloud(on: Placed, colour: Colour) -> None:
    for x, y, radius in ((-0.2, 0.08, 0.15), (0.0, -0.04, 0.2), (0.2, 0.07, 0.16)):
        on.dots([(x, y)], radius, colour)
    on.shape(ellipse(0, 0.14, 0.34, 0.1, 3), colour)


def mountain(on: Placed, colour: Colour) -> None:
    on.shape([(0.04, 0.3), (0.22, -0.12), (0.4, 0.3)], darker(colour, 0.2))
    on.shape([(-0.4, 0.3), (-0.06, -0.33), (0.28, 0.3)], colour)
    on.shape(
        [(-0.06, -0.33), (-0.165, -0.135), (-0.1, -0.17), (-0.05, -0.11), (0.045, -0.135)], WHITE
    )


def cup(on: Placed, colour: Colour) -> None:
    handle = ellipse(0.22, 0.02, 0.13, 0.13)
    on.line([*handle, handle[0]], darker(colour, 0.1), 0.05)
    on.shape([(-0.27, -0.2), (0.23, -0.2), (0.17, 0.27), (-0.21, 0.27)], colour)
    on.shape(ellipse(-0.02, -0.2, 0.25, 0.055), darker(colour, 0.4))


def umbrella(on: Placed, colour: Colour) -> None:
    on.line(smooth([(0, -0.1), (0, 0.28), (0.06, 0.34), (0.11, 0.28)], closed=False), BROWN, 0.04)
    on.shape([(-0.37, 0.02), *ellipse(0, 0.02, 0.37, 0.36)[32:], (0.37, 0.02)], colour)
    on.shape(
        [(-0.12, 0.02), *ellipse(0, 0.02, 0.12, 0.36)[32:], (0.12, 0.02)], lighter(colour, 0.35)
    )


def gift(on: Placed, colour: Colour) -> None:
    ribbon = YELLOW if colour[2] > 80 or colour[1] < 120 else RED
    on.shape(box(-0.26, -0.08, 0.26, 0.34), colour)
    on.shape(box(-0.31, -0.18, 0.31, -0.06), darker(colour, 0.12))
    on.shape(box(-0.05, -0.18, 0.05, 0.34), ribbon)
    for turn in (-28, 208):
        on.shape(placed(ellipse(0.11, 0, 0.12, 0.07), 0, -0.2, 1, turn), ribbon)


PAINTED: tuple[Callable[[Placed, Colour], None], ...] = (
    circle, square, triangle, star, heart, diamond, ring, moon, apple, pear, cherries, banana,
    strawberry, melon, grapes, car, bus, truck, boat, rocket, balloon, house, castle, tent, cat,
    rabbit, fish, bird, butterfly, snail, ladybug, turtle, tree, flower, mushroom, cactus, sun,
    cloud, mountain, cup, umbrella, gift,
)  # fmt: skip
THINGS = {function.__name__: function for function in PAINTED}
ROOFED = {"house": "house with a {} roof", "castle": "castle with {} towers"}  # colour of a part
USUAL = {  # what a thing's colour is, half of the time
    "banana": "yellow", "apple": "red", "strawberry": "red", "melon": "red", "cherries": "red",
    "pear": "green", "grapes": "purple", "tree": "green", "cactus": "green", "sun": "yellow",
    "moon": "yellow", "mountain": "gray", "ladybug": "red", "mushroom": "red", "cloud": "white",
}  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """One thing, its colour, size ("", "small" or "big") and background."""

    name: str
    colour: str
    size: str
    background: str

    @classmethod
    def random(cls, rng: Random) -> Thing:
        name = rng.choice(list(THINGS))
        colour = rng.choice(list(PALETTE))
        if name in USUAL and rng.random() < 0.5:
            colour = USUAL[name]
        pale = [background for background in BACKGROUNDS if background != "white"]
        white = colour != "white" and rng.random() < 0.5
        return cls(name, colour, rng.choice(("", "", "small", "big")),
                   "white" if white else rng.choice(pale))  # fmt: skip

    def draw(self, rng: Random) -> Image.Image:
        """Paint it in the plain look: RGB, 128 x 128."""
        canvas = Canvas("plain", BACKGROUNDS[self.background])
        scale = {"": 1.0, "small": 0.6, "big": 1.22}[self.size] * rng.uniform(0.94, 1.06)
        place = Placed(
            canvas, 0.5 + rng.uniform(-0.03, 0.03), 0.5 + rng.uniform(-0.03, 0.03), scale
        )
        THINGS[self.name](place, vary(PALETTE[self.colour], rng))
        return canvas.finished()

    def caption(self, rng: Random) -> str:
        if self.name in ROOFED and rng.random() < 0.8:
            words = [self.size, ROOFED[self.name].format(self.colour)]
        else:
            usual = USUAL.get(self.name) == self.colour
            words = [self.size, "" if self.name in ROOFED or (usual and rng.random() < 0.3)
                     else self.colour, self.name]  # fmt: skip
        if words[0] and rng.random() < 0.3:
            words[0] = ""
        phrase = " ".join(word for word in words if word)
        article = (
            "" if self.name in ("cherries", "grapes") else "an " if phrase[0] in "aou" else "a "
        )
        opening = rng.choice(("a flat picture of ", "a simple picture of ", ""))
        place = ""
        if self.background != "white" and rng.random() < 0.6:
            place = f" on a {self.background} background"
        return f"{opening}{article}{phrase}{place}"
