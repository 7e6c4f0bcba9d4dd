"""The colour of a creature, read from pixels: a judge that no network has a part in."""

from __future__ import annotations

import numpy as np
from PIL import Image

from bundled.canvas import PALETTE, darker, lighter

COLOURS = tuple(PALETTE)
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def shades() -> tuple[np.ndarray, list[str]]:
    """The shades in which a body of each colour is painted: in light, in shadow, on the belly."""
    rows, names = [], []
    for name, colour in PALETTE.items():
        for shade in (colour, darker(colour, 0.24), lighter(colour, 0.34)):
            rows.append(shade)
            names.append(name)
    return np.array(rows, dtype=float), names


def body_colour(image: Image.Image) -> str:
    """The named colour of most pixels in the middle of the picture, where the body is."""
    side = image.width
    middle = image.crop((int(side * 0.36), int(side * 0.40), int(side * 0.64), int(side * 0.80)))
    pixels = lab(np.asarray(middle, dtype=float).reshape(-1, 3))
    known, names = shades()
    nearest = np.linalg.norm(pixels[:, None] - lab(known)[None], axis=2).argmin(1)
    votes = dict.fromkeys(COLOURS, 0)
    for index in nearest:
        votes[names[index]] += 1
    return max(votes, key=votes.get)


def lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB 0..255, N,3 -> CIE L*a*b* (D65), in which distances are near to what eyes see."""
    linear = rgb / 255
    linear = np.where(linear > 0.04045, ((linear + 0.055) / 1.055) ** 2.4, linear / 12.92)
    xyz = linear @ TO_XYZ.T / (0.95047, 1.0, 1.08883)
    cube = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = cube.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def rgb(values: np.ndarray) -> np.ndarray:
    """CIE L*a*b*, N,3 -> sRGB uint8 N,3; what no screen shows is cut."""
    y = (values[:, 0] + 16) / 116
    cube = np.stack([y + values[:, 1] / 500, y, y - values[:, 2] / 200], axis=1)
    xyz = np.where(cube > 0.206893, cube**3, (cube - 16 / 116) / 7.787) * (0.95047, 1.0, 1.08883)
    linear = np.clip(xyz @ np.linalg.inv(TO_XYZ).T, 0, 1)
    signal = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    return np.round(signal * 255).astype(np.uint8)
