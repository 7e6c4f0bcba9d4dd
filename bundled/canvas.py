"""What the drawings are made of: a palette, curves, and a canvas that paints in one of two looks.

Coordinates are fractions of the picture's side, x to the right and y down; a curve is a list of
(x, y) points. Everything is painted at `OVERSAMPLING` times the size and reduced, which smooths the
edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

from PIL import Image, ImageChops, ImageDraw

SIZE = 128  # pixels a side
OVERSAMPLING = 4
OUTLINE = 0.013  # width of the outlines, a fraction of the side

Colour = tuple[int, int, int]
Curve = list[tuple[float, float]]

PALETTE: dict[str, Colour] = {
    "red": (218, 50, 48),
    "orange": (244, 138, 34),
    "yellow": (250, 214, 58),
    "green": (82, 172, 72),
    "turquoise": (58, 198, 192),
    "blue": (56, 108, 214),
    "purple": (136, 78, 188),
    "pink": (246, 148, 188),
    "brown": (138, 90, 56),
    "gray": (148, 150, 156),
    "black": (56, 56, 64),
    "white": (246, 245, 242),
}
BACKGROUNDS: dict[str, Colour] = {
    "white": (255, 255, 255),
    "light blue": (192, 220, 244),
    "light green": (202, 232, 192),
    "light yellow": (252, 240, 190),
    "light pink": (248, 212, 224),
    "light gray": (214, 214, 220),
}
INK: Colour = (44, 36, 52)  # outlines, pupils, mouths
IVORY: Colour = (232, 206, 150)  # horns, claws


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """The colour that lies `share` (0..1) of the way from one to the other."""
    return tuple(round(a + (b - a) * share) for a, b in zip(one, other, strict=True))


def lighter(colour: Colour, share: float) -> Colour:
    return mix(colour, (255, 255, 255), share)


def darker(colour: Colour, share: float) -> Colour:
    return mix(colour, (24, 16, 40), share)


def vary(colour: Colour, rng: Random, amount: int = 9) -> Colour:
    """The same named colour, a little different, as no two pictures share one exactly."""
    return tuple(min(255, max(0, part + rng.randint(-amount, amount))) for part in colour)


def ellipse(x: float, y: float, rx: float, ry: float, power: float = 2.0) -> Curve:
    """A superellipse: power 2 is an ellipse, 4 nearly a rectangle with round corners."""
    curve = []
    for step in range(64):
        angle = step * math.tau / 64
        cos, sin = math.cos(angle), math.sin(angle)
        curve.append(
            (
                x + rx * math.copysign(abs(cos) ** (2 / power), cos),
                y + ry * math.copysign(abs(sin) ** (2 / power), sin),
            )
        )
    return curve


def smooth(points: Sequence[tuple[float, float]], closed: bool = True, steps: int = 8) -> Curve:
    """The Catmull-Rom spline through the points."""
    count = len(points)
    curve = []
    for i in range(count if closed else count - 1):
        around = [i - 1, i, i + 1, i + 2]
        if closed:
            around = [j % count for j in around]
        p0, p1, p2, p3 = (points[min(max(j, 0), count - 1)] for j in around)
        for step in range(steps):
            t = step / steps
            curve.append(
                tuple(
                    0.5
                    * (
                        2 * b
                        + (c - a) * t
                        + (2 * a - 5 * b + 4 * c - d) * t**2
                        + (3 * b - a - 3 * c + d) * t**3
                    )
                    for a, b, c, d in zip(p0, p1, p2, p3, strict=True)
                )
            )
    return curve if closed else [*curve, points[-1]]


def placed(
    curve: Sequence[tuple[float, float]], x: float, y: float, scale: float = 1.0, turn: float = 0.0
) -> Curve:
    """The curve scaled, turned clockwise by `turn` degrees about its origin, and moved to x, y."""
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return [
        (x + scale * (px * cos - py * sin), y + scale * (px * sin + py * cos)) for px, py in curve
    ]


def mirrored(curve: Curve, axis: float = 0.5) -> Curve:
    return [(2 * axis - x, y) for x, y in curve]


class Canvas:
    """A square picture in one look: "plain" is flat colour, "pokemon" has outlines and shading."""

    def __init__(self, look: str, background: Colour):
        self.outlined = look == "pokemon"
        self.side = SIZE * OVERSAMPLING
        self.image = Image.new("RGB", (self.side, self.side), background)
        self.pen = ImageDraw.Draw(self.image)

    def shape(self, curve: Curve, colour: Colour, outline: bool = True, shade: bool = True) -> None:
        """Fill a closed curve; the outlined look adds a shadow, a light and an outline."""
        points = self._pixels(curve)
        self.pen.polygon(points, fill=colour)
        if self.outlined and shade:
            self._shade(points, colour)
        if self.outlined and outline:
            self._stroke([*points, points[0], points[1]], OUTLINE, INK)

    def line(self, curve: Curve, colour: Colour, width: float) -> None:
        """An open curve with round ends; `width` is a fraction of the side."""
        self._stroke(self._pixels(curve), width, colour)

    def inside(self, clip: Curve, shapes: Sequence[Curve], colour: Colour) -> None:
        """Fill the parts of the shapes that lie inside the curve `clip`."""
        clip_mask, shapes_mask = self._mask(self._pixels(clip)), Image.new("L", self.image.size)
        pen = ImageDraw.Draw(shapes_mask)
        for shape in shapes:
            pen.polygon(self._pixels(shape), fill=255)
        self.image.paste(colour, mask=ImageChops.darker(clip_mask, shapes_mask))
        if self.outlined:
            points = self._pixels(clip)
            self._stroke([*points, points[0], points[1]], OUTLINE, INK)

    def finished(self) -> Image.Image:
        """The picture at its final size: RGB, `SIZE` pixels a side."""
        return self.image.reduce(OVERSAMPLING)

    def _pixels(self, curve: Curve) -> Curve:
        return [(x * self.side, y * self.side) for x, y in curve]

    def _mask(self, points: Curve, dx: float = 0, dy: float = 0) -> Image.Image:
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon([(x + dx, y + dy) for x, y in points], fill=255)
        return mask

    def _shade(self, points: Curve, colour: Colour) -> None:
        """A crescent of shadow at the lower right and one of light at the upper left."""
        xs, ys = [x for x, _ in points], [y for _, y in points]
        left, top = math.floor(min(xs)), math.floor(min(ys))
        box = (left, top, math.ceil(max(xs)) + 1, math.ceil(max(ys)) + 1)
        size = (box[2] - box[0], box[3] - box[1])
        depth = 0.09 * min(size)
        local = [(x - left, y - top) for x, y in points]

        def crescent(offset: float) -> Image.Image:
            whole, moved = Image.new("L", size), Image.new("L", size)
            ImageDraw.Draw(whole).polygon(local, fill=255)
            ImageDraw.Draw(moved).polygon([(x + offset, y + offset) for x, y in local], fill=255)
            return ImageChops.subtract(whole, moved)

        self.image.paste(darker(colour, 0.24), (left, top), crescent(-depth))
        self.image.paste(lighter(colour, 0.34), (left, top), crescent(depth * 0.6))

    def _stroke(self, points: Curve, width: float, colour: Colour) -> None:
        pixels = max(1, round(width * self.side))
        self.pen.line(points, fill=colour, width=pixels, joint="curve")
        radius = pixels / 2
        for x, y in (points[0], points[-1]):
            self.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
