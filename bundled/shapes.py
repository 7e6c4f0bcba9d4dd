"""Plain shapes, and houses and castles with coloured roofs, for the bundled base model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from PIL import Image

from bundled.canvas import BACKGROUNDS, PALETTE, Canvas, Colour, Curve, ellipse, placed, vary

BROWN, SKY, SAND = (138, 92, 58), (150, 208, 240), (240, 214, 160)
ROOFED = {"house": "house with a {} roof", "castle": "castle with {} towers"}


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


# Each of these paints one shape in its colour around (0, 0), within about 0.4 of it.


def circle(on: Placed, colour: Colour) -> None:
    on.shape(ellipse(0, 0, 0.34, 0.34), colour)


def square(on: Placed, colour: Colour) -> None:
    on.shape(box(-0.3, -0.3, 0.3, 0.3), colour)


def triangle(on: Placed, colour: Colour) -> None:
    on.shape([(0, -0.34), (0.36, 0.28), (-0.36, 0.28)], colour)


def diamond(on: Placed, colour: Colour) -> None:
    on.shape([(0, -0.38), (0.27, 0), (0, 0.38), (-0.27, 0)], colour)


def ring(on: Placed, colour: Colour) -> None:
    curve = ellipse(0, 0, 0.27, 0.27)
    on.line([*curve, curve[0]], colour, 0.12)


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


def box(left: float, top: float, right: float, bottom: float) -> Curve:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


PAINTED: tuple[Callable[[Placed, Colour], None], ...] = (
    circle, square, triangle, diamond, ring, house, castle,
)  # fmt: skip
SHAPES = {function.__name__: function for function in PAINTED}


@dataclass(frozen=True)
class Shape:
    """One shape, its colour, size ("", "small" or "big") and background."""

    name: str
    colour: str
    size: str
    background: str

    @classmethod
    def random(cls, rng: Random) -> Shape:
        name, colour = rng.choice(list(SHAPES)), rng.choice(list(PALETTE))
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
        SHAPES[self.name](place, vary(PALETTE[self.colour], rng))
        return canvas.finished()

    def caption(self, rng: Random) -> str:
        size = "" if rng.random() < 0.3 else self.size
        if self.name in ROOFED:
            told = rng.random() < 0.8
            words = [size, ROOFED[self.name].format(self.colour) if told else self.name]
        else:
            words = [size, self.colour, self.name]
        phrase = " ".join(word for word in words if word)
        article = "an" if phrase[0] in "aou" else "a"
        opening = rng.choice(("a flat picture of ", "a simple picture of ", ""))
        place = ""
        if self.background != "white" and rng.random() < 0.6:
            place = f" on a {self.background} background"
        return f"{opening}{article} {phrase}{place}"
