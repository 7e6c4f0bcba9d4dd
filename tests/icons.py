"""Stand-ins for the icons of the base model's things: four shapes of our own."""

import numpy as np
from PIL import Image, ImageDraw

from bundled.canvas import PALETTE
from bundled.icons import SIDE, Icons, Thing, main_part, named


def stand_ins() -> Icons:
    """A red ball, a blue box, a green roof and a person, whose colour does not change."""
    drawings = [
        (("ball", "globe"), True, disc(PALETTE["red"])),
        (("box",), True, square(PALETTE["blue"])),
        (("roof",), True, triangle(PALETTE["green"])),
        (("person",), False, square(PALETTE["orange"])),
    ]
    things, pictures, parts = [], [], []
    for names, paintable, pixels in drawings:
        mask, mean, _ = main_part(pixels)
        things.append(Thing(names, named(mean), paintable, mean))
        pictures.append(pixels)
        parts.append(mask)
    return Icons(tuple(things), np.stack(pictures), np.stack(parts))


def disc(colour) -> np.ndarray:
    return _drawn(lambda pen: pen.ellipse((0, 0, SIDE - 1, SIDE - 1), fill=(*colour, 255)))


def square(colour) -> np.ndarray:
    return _drawn(lambda pen: pen.rectangle((8, 0, SIDE - 9, SIDE - 1), fill=(*colour, 255)))


def triangle(colour) -> np.ndarray:
    corners = [(SIDE / 2, 0), (SIDE - 1, SIDE - 1), (0, SIDE - 1)]
    return _drawn(lambda pen: pen.polygon(corners, fill=(*colour, 255)))


def _drawn(paint) -> np.ndarray:
    image = Image.new("RGBA", (SIDE, SIDE))
    paint(ImageDraw.Draw(image))
    return np.array(image)
