"""The laws of which scores and features are drawn, to see how verdicts on them come out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import ndarray
from numpy.random import Generator

WIDTH, CLASSES, SPREAD = 128, 12, 0.6  # of features: numbers, kinds of pictures, and within a kind

# Scores of both sides, 0..100: float N each. In the first six nothing differs: both sides are of
# one law. In the last two the means are equal, and nothing else is.


def normal(random: Generator, count: int) -> tuple[ndarray, ndarray]:
    prompts = random.normal(50, 15, count)
    return prompts + random.normal(0, 10, count), prompts + random.normal(0, 10, count)


def clamped(mean: float) -> Callable[[Generator, int], tuple[ndarray, ndarray]]:
    def draw(random: Generator, count: int) -> tuple[ndarray, ndarray]:
        return tuple(random.normal(mean, 20, (2, count)).clip(0, 100))

    return draw


def tied(random: Generator, count: int) -> tuple[ndarray, ndarray]:
    base = random.normal(50, 15, count)
    return base + random.choice([-5.0, 0.0, 5.0], count, p=[0.15, 0.7, 0.15]), base


def heavy(random: Generator, count: int) -> tuple[ndarray, ndarray]:
    base = random.normal(50, 5, count)
    return base + 5 * random.standard_t(3, count), base


def skewed(random: Generator, count: int) -> tuple[ndarray, ndarray]:
    return tuple(20 + random.exponential(10, (2, count)))


def skewed_model(random: Generator, count: int) -> tuple[ndarray, ndarray]:
    return 40 + random.exponential(10, count), random.normal(50, 10, count)


def skewed_differences(random: Generator, count: int) -> tuple[ndarray, ndarray]:
    base = random.normal(50, 5, count)
    return base + random.exponential(10, count) - 10, base


SCORES = {
    "normal": normal,
    "most clamped at 0": clamped(-10.0),
    "most clamped at 100": clamped(105.0),
    "70 % ties": tied,
    "heavy tails (t, 3 degrees)": heavy,
    "skewed (exponential)": skewed,
}
MEANS_ALONE = {
    "the model's exponential, the base's normal": skewed_model,
    "exponential differences": skewed_differences,
}


def unit(rows: ndarray) -> ndarray:
    """float32, each of length 1."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("float32")


def sphere(random: Generator, count: int) -> ndarray:
    """float32 N,D anywhere on the sphere."""
    return unit(random.normal(size=(count, WIDTH)))


@dataclass(frozen=True)
class Source:
    """Pictures by their features: around the middles of CLASSES, moved by an angle."""

    middles: ndarray
    direction: ndarray
    angle: float = 0.0

    def draw(self, random: Generator, kinds: ndarray) -> ndarray:
        """float32 N,D of these kinds, int N."""
        rows = unit(self.middles[kinds] + SPREAD * sphere(random, len(kinds)))
        return unit(math.cos(self.angle) * rows + math.sin(self.angle) * self.direction)


def source(random: Generator) -> Source:
    return Source(sphere(random, CLASSES), sphere(random, 1))


def kinds_of(random: Generator, count: int) -> ndarray:
    return random.integers(0, CLASSES, count)
