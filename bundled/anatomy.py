"""How a pocket creature is put together: each function paints one part of it.

Parts are painted from back to front: wings, tail, feet, ears, body, belly, pattern, horns, face.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from bundled.canvas import (
    INK,
    IVORY,
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

WHITE: Colour = (255, 255, 255)
BLUSH: Colour = (244, 128, 128)


@dataclass(frozen=True)
class Frame:
    """Where a creature stands: centre, half width and half height of its head and of its body."""

    x: float
    head_y: float
    head_rx: float
    head_ry: float
    body_y: float
    body_rx: float
    body_ry: float
    body: Curve
    head: Curve | None  # None where head and body are one

    @property
    def top(self) -> float:
        return self.head_y - self.head_ry

    @property
    def bottom(self) -> float:
        return self.body_y + self.body_ry


def frame(shape: str, rng: Random) -> Frame:
    """The frame of a creature of that body shape, with proportions of its own."""
    rx, ry = {
        "round": (0.235, 0.235),
        "tall": (0.165, 0.285),
        "chubby": (0.272, 0.215),
        "small": (0.165, 0.160),
        "square": (0.215, 0.215),
        "big-headed": (0.245, 0.200),
    }[shape]
    rx, ry = rx * rng.uniform(0.93, 1.07), ry * rng.uniform(0.93, 1.07)
    x = 0.5 + rng.uniform(-0.02, 0.02)
    if shape == "big-headed":
        head_y, body_rx, body_ry = 0.44, rx * 0.62, 0.155
        body_y = head_y + ry + body_ry * 0.62
        head = ellipse(x, head_y, rx, ry, rng.uniform(2.0, 2.4))
        body = ellipse(x, body_y, body_rx, body_ry, 2.3)
        return Frame(x, head_y, rx, ry, body_y, body_rx, body_ry, body, head)
    y = min(0.84 - ry, 0.60)
    power = 3.6 if shape == "square" else rng.uniform(1.95, 2.35)
    return Frame(x, y, rx, ry, y, rx, ry, ellipse(x, y, rx, ry, power), None)


def wings(canvas: Canvas, at: Frame, kind: str, colour: Colour, rng: Random) -> None:
    """A pair of wings behind the shoulders."""
    outlines = {
        "feathered": [
            (0.0, 0.05), (0.08, -0.10), (0.22, -0.20), (0.33, -0.21), (0.34, -0.13), (0.30, -0.07),
            (0.31, -0.01), (0.24, 0.04), (0.23, 0.09), (0.14, 0.11),
        ],
        "bat": [
            (0.0, 0.06), (0.10, -0.12), (0.22, -0.24), (0.32, -0.16), (0.36, 0.02), (0.28, -0.02),
            (0.25, 0.08), (0.17, 0.03), (0.12, 0.11),
        ],
        "butterfly": [
            (0.0, 0.02), (0.12, -0.16), (0.26, -0.22), (0.34, -0.13), (0.28, -0.01), (0.22, 0.02),
            (0.28, 0.08), (0.25, 0.17), (0.14, 0.16), (0.06, 0.09),
        ],
    }  # fmt: skip
    points = outlines[kind]
    curve = points if kind == "bat" else smooth(points)
    shoulder_y = at.body_y - at.body_ry * (0.55 if at.head else 0.2)
    shoulder_x = at.x + at.body_rx * 0.7
    turn = rng.uniform(-8, 8)
    scale = min(rng.uniform(1.0, 1.15), (0.98 - shoulder_x) / 0.36)  # stays in the picture
    right = placed(curve, shoulder_x, shoulder_y, scale, turn)
    for wing in (right, mirrored(right, at.x)):
        canvas.shape(wing, colour)
    if kind == "butterfly":
        spot = placed(ellipse(0.22, -0.10, 0.05, 0.05), shoulder_x, shoulder_y, scale, turn)
        for dot in (spot, mirrored(spot, at.x)):
            canvas.shape(dot, lighter(colour, 0.5), outline=False, shade=False)


def tail(canvas: Canvas, at: Frame, kind: str, colour: Colour, rng: Random) -> None:
    """A tail that shows beside the body, low on the right."""
    x, y = at.x + at.body_rx * 0.8, at.bottom - at.body_ry * 0.3
    tip_x, tip_y = x + 0.14 * rng.uniform(0.95, 1.1), y - 0.05
    scale = rng.uniform(1.0, 1.15)
    if kind == "curly":
        spiral = [
            (0.045 * (1.5 - t / 9) * math.cos(t) + tip_x, 0.045 * (1.5 - t / 9) * math.sin(t) + y)
            for t in (2.6 - step * 0.4 for step in range(-2, 22))
        ]
        stalk = smooth(
            [(x - 0.06, y + 0.03), (x + 0.03, y + 0.05), *spiral[::-1][:1]], closed=False
        )
        for width, ink in (
            ((0.062, INK), (0.040, colour)) if canvas.outlined else ((0.045, colour),)
        ):
            canvas.line(stalk[:-1], ink, width)
            canvas.line(spiral, ink, width)
        return
    stalk = smooth([(x - 0.06, y + 0.04), (x + 0.06, y + 0.05), (tip_x, tip_y)], closed=False)
    stalks = ((0.066, INK), (0.042, colour)) if canvas.outlined else ((0.048, colour),)
    for width, ink in stalks:
        canvas.line(stalk, ink, width)
    if kind == "flame":
        flame = smooth([
            (0.0, 0.07), (-0.075, 0.02), (-0.06, -0.06), (-0.025, -0.04), (0.01, -0.16),
            (0.035, -0.07), (0.065, -0.08), (0.075, 0.02),
        ])  # fmt: skip
        for colour, share in (
            (PALETTE["red"], 1.0),
            ((255, 150, 40), 0.68),
            ((255, 226, 90), 0.36),
        ):
            outer = share == 1.0
            curve = placed(flame, tip_x, tip_y + 0.04 * (1 - share) - 0.03, scale * share, 12)
            canvas.shape(curve, colour, outline=outer, shade=False)
    elif kind == "leaf":
        leaf = smooth([(0.0, 0.06), (-0.075, -0.01), (-0.05, -0.11), (0.0, -0.18), (0.055, -0.11),
                       (0.075, -0.01)])  # fmt: skip
        canvas.shape(placed(leaf, tip_x, tip_y, scale, 24), (96, 190, 72))
        vein = placed([(0.0, 0.04), (0.0, -0.12)], tip_x, tip_y, scale, 24)
        canvas.line(vein, (48, 120, 48), 0.012)
    else:  # lightning
        bolt = [(0.085, -0.17), (-0.06, -0.01), (0.005, -0.01), (-0.04, 0.09), (0.10, -0.055),
                (0.035, -0.055)]  # fmt: skip
        canvas.shape(placed(bolt, tip_x, tip_y, scale, 4), (255, 214, 40))


def feet(canvas: Canvas, at: Frame, colour: Colour) -> None:
    offset = at.body_rx * 0.48
    for x in (at.x - offset, at.x + offset):
        canvas.shape(ellipse(x, at.bottom + 0.01, 0.068, 0.042), colour)


def arms(canvas: Canvas, at: Frame, colour: Colour, raised: bool) -> None:
    y = at.body_y + at.body_ry * (-0.05 if at.head else 0.22)
    arm = placed(
        ellipse(0.035, 0, 0.075, 0.036), at.x + at.body_rx * 0.86, y, 1, -38 if raised else 42
    )
    for curve in (arm, mirrored(arm, at.x)):
        canvas.shape(curve, colour)


def ears(canvas: Canvas, at: Frame, kind: str, colour: Colour, rng: Random) -> None:
    inner = lighter(colour, 0.45)
    spread = rng.uniform(0.60, 0.72)
    x, y = at.x + at.head_rx * spread, at.head_y - at.head_ry * math.sqrt(1 - spread**2) * 0.93
    curve, inside, turn = {
        "pointed": ([(-0.075, 0.06), (0.015, -0.155), (0.085, 0.07)],
                    [(-0.035, 0.03), (0.012, -0.095), (0.045, 0.035)], 22),
        "round": (ellipse(0, -0.03, 0.088, 0.088), ellipse(0, -0.03, 0.046, 0.046), 20),
        "long": (ellipse(0, -0.13, 0.056, 0.165), ellipse(0, -0.13, 0.026, 0.112), 14),
    }[kind]  # fmt: skip
    for mirror in (False, True):
        for part, paint in ((curve, colour), (inside, inner)):
            shape = placed(part, x, y, 1, turn)
            shape = mirrored(shape, at.x) if mirror else shape
            canvas.shape(shape, paint, outline=paint is colour, shade=False)


def horns(canvas: Canvas, at: Frame, count: int) -> None:
    if count == 1:
        horn = [(-0.05, 0.03), (0.0, -0.17), (0.05, 0.03)]
        canvas.shape(placed(horn, at.x, at.top + 0.012), IVORY)
        return
    horn = smooth([(-0.05, 0.03), (-0.03, -0.07), (0.055, -0.155), (0.04, -0.06), (0.05, 0.03)])
    right = placed(horn, at.x + at.head_rx * 0.36, at.top + 0.022)
    for curve in (right, mirrored(right, at.x)):
        canvas.shape(curve, IVORY)


def belly(canvas: Canvas, at: Frame, colour: Colour) -> None:
    share = 0.62 if at.head else 0.36
    y = at.body_y + at.body_ry * (0.15 if at.head else 0.52)
    patch = ellipse(at.x, y, at.body_rx * 0.62, at.body_ry * share)
    canvas.inside(at.body, [patch], colour)


def pattern(canvas: Canvas, at: Frame, kind: str, colour: Colour, rng: Random) -> None:
    """Spots or stripes of a second shade on the upper body (on the head, where there is one)."""
    clip, x, y, rx, ry = at.body, at.x, at.body_y, at.body_rx, at.body_ry
    if at.head:
        clip, y, rx, ry = at.head, at.head_y, at.head_rx, at.head_ry
    if kind == "spots":
        places = [
            (-0.72, -0.42),
            (-0.3, -0.8),
            (0.34, -0.78),
            (0.76, -0.36),
            (-0.84, 0.3),
            (0.86, 0.32),
        ]
        shapes = [
            ellipse(x + rx * dx, y + ry * dy, radius, radius)
            for dx, dy in places
            for radius in [rng.uniform(0.032, 0.046)]
        ]
    else:
        shapes = []
        for dx in (-0.5, 0.0, 0.5):
            top = (x + rx * dx, y - ry * 1.05)
            shapes.append([(top[0] - 0.036, top[1]), (top[0] + 0.036, top[1]),
                           (top[0] + 0.006, y - ry * (0.42 if dx else 0.36))])  # fmt: skip
        for side in (-1, 1):
            for dy in (-0.12, 0.36):
                edge = x + side * rx * 1.05
                shapes.append([(edge, y + ry * dy - 0.034), (edge, y + ry * dy + 0.034),
                               (x + side * rx * 0.58, y + ry * dy)])  # fmt: skip
    canvas.inside(clip, shapes, colour)


def eyes(canvas: Canvas, at: Frame, kind: str, iris: Colour) -> None:
    y = at.head_y - at.head_ry * (0.02 if at.head else 0.18)
    gap = min(0.105, at.head_rx * 0.46)
    size = 0.058 if canvas.outlined else 0.034
    if kind == "one":
        _open_eye(canvas, at.x, y, size * 1.5, iris)
        return
    for x in (at.x - gap, at.x + gap):
        if kind == "closed":
            arc = smooth(
                [(x - 0.04, y + 0.012), (x, y - 0.022), (x + 0.04, y + 0.012)], closed=False
            )
            canvas.line(arc, INK, 0.02)
        else:
            _open_eye(canvas, x, y, size, iris)


def _open_eye(canvas: Canvas, x: float, y: float, size: float, iris: Colour) -> None:
    """A dark dot in the plain look; white, iris, pupil and a glint in the outlined one."""
    if not canvas.outlined:
        canvas.shape(ellipse(x, y, size, size * 1.15), INK)
        return
    canvas.shape(ellipse(x, y, size, size * 1.2), WHITE, shade=False)
    canvas.shape(
        ellipse(x, y + size * 0.12, size * 0.68, size * 0.92), iris, outline=False, shade=False
    )
    canvas.shape(
        ellipse(x, y + size * 0.2, size * 0.42, size * 0.6), INK, outline=False, shade=False
    )
    glint = ellipse(x - size * 0.26, y - size * 0.34, size * 0.27, size * 0.27)
    canvas.shape(glint, WHITE, outline=False, shade=False)


def mouth(canvas: Canvas, at: Frame, kind: str) -> None:
    y = at.head_y + at.head_ry * (0.42 if at.head else 0.14)
    x, ink = at.x, INK
    if kind == "open":
        jaw = [(x - 0.05, y - 0.012), (x + 0.05, y - 0.012), (x + 0.035, y + 0.032), (x, y + 0.048),
               (x - 0.035, y + 0.032)]  # fmt: skip
        canvas.shape(smooth(jaw), (168, 52, 62), shade=False)
        return
    smile = smooth([(x - 0.046, y), (x, y + 0.026), (x + 0.046, y)], closed=False)
    canvas.line(smile, ink, 0.017)
    if kind == "fangs":
        for side in (-1, 1):
            tooth = [(x + side * 0.036, y + 0.008), (x + side * 0.012, y + 0.018),
                     (x + side * 0.022, y + 0.05)]  # fmt: skip
            canvas.shape(tooth, WHITE, outline=False, shade=False)


def cheeks(canvas: Canvas, at: Frame) -> None:
    y = at.head_y + at.head_ry * (0.36 if at.head else 0.10)
    gap = min(0.165, at.head_rx * 0.70)
    for x in (at.x - gap, at.x + gap):
        canvas.shape(ellipse(x, y, 0.030, 0.022), BLUSH, outline=False, shade=False)


def shadow(canvas: Canvas, at: Frame, background: Colour) -> None:
    curve = ellipse(at.x, at.bottom + 0.05, at.body_rx * 1.15, 0.035)
    canvas.shape(curve, darker(background, 0.14), outline=False, shade=False)


def second_shade(colour: Colour, rng: Random) -> Colour:
    """The shade of a pattern: darker than the body, lighter where the body is dark."""
    return vary(lighter(colour, 0.34) if sum(colour) < 240 else darker(colour, 0.34), rng, 4)
