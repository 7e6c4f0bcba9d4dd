"""Plain shapes that the base model learns beside things and creatures."""

from random import Random

import numpy as np

from bundled.canvas import PALETTE
from bundled.shapes import ROOFED, SHAPES, Shape


def test_every_shape_is_painted_in_its_colour_and_named_in_its_caption():
    seen = set()
    for seed in range(80):
        rng = Random(seed)
        shape = Shape.random(rng)
        seen.add(shape.name)
        pixels = np.asarray(shape.draw(rng), int).reshape(-1, 3)
        assert (np.abs(pixels - PALETTE[shape.colour]).max(1) < 40).mean() > 0.01
        caption = shape.caption(rng)
        assert f" {shape.name}" in f" {caption}"
        assert shape.name in ROOFED or f" {shape.colour} " in caption
        if " on a " in caption:
            assert caption.endswith(f" on a {shape.background} background")
    assert seen == set(SHAPES)
