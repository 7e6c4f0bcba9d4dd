"""What is said of pictures that nobody should praise, and of some that everybody should?

Sets of pictures are played as a model's, against bases that draw in another look or other captions;
the bundled scorer looks at them, and what counts are the sentences that a user reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from bundled.canvas import PALETTE, SIZE
from bundled.creatures import HELD_OUT_SEEDS, Creature, Drawing, draw, rng_of
from evaluation.clip_score import BUNDLED, Scorer
from evaluation.comparison import against
from evaluation.image_scorer import ImageScorer
from evaluation.reference_images import CaptionedImage, ReferenceImages, reference
from evaluation.results import Result, result
from evaluation.scores import ModelScores, PromptScore
from evaluation.verdict import sentences

OTHERS = HELD_OUT_SEEDS[100_000:]
TRAINING = 200  # drawings, as the model's training pictures
FOLLOWING = {  # by what its sentence says
    "better": " follows its prompts better than ",
    "worse": " follows its prompts worse than ",
    "cannot tell": "These prompts cannot tell ",
}
STYLE = {
    "nearer": "are nearer to the style of its training pictures",
    "farther": "are farther from the style of its training pictures",
    "all alike": "Its pictures of different prompts are more alike",
    "cannot tell": "Whether its pictures are nearer in style",
}
PLAIN_OTHERS = "other captions, plain look"
OTHERS_ALIKE = "other captions, right look"
PLAIN_OWN = "right captions, plain look"
OF_OTHERS, PLAIN = (PLAIN_OTHERS, OTHERS_ALIKE), (PLAIN_OTHERS, PLAIN_OWN)


@dataclass(frozen=True)
class Played:
    """A set of pictures, and which praise it deserves."""

    paint: Callable[[list[Drawing]], list[Image.Image]]  # of drawings of the captions
    follows: tuple[str, ...] = ()  # bases than which it does follow its prompts better
    nearer: tuple[str, ...] = ()  # bases than which it is nearer in style


def own(drawings: list[Drawing]) -> list[Image.Image]:
    return [each.image for each in drawings]


def others(drawings: list[Drawing]) -> list[Image.Image]:
    return [draw("pokemon", seed).image for seed in OTHERS[: len(drawings)]]


def plain_others(drawings: list[Drawing]) -> list[Image.Image]:
    return [draw("plain", seed).image for seed in OTHERS[: len(drawings)]]


def plain_own(drawings: list[Drawing]) -> list[Image.Image]:
    """The very creatures of the captions, in the look of the bundled base."""
    found = []
    for seed in HELD_OUT_SEEDS[: len(drawings)]:
        rng = rng_of("pokemon", seed)
        found.append(Creature.random(rng).draw("plain", rng))
    return found


def every_fourth_own(drawings: list[Drawing]) -> list[Image.Image]:
    pairs = enumerate(zip(own(drawings), others(drawings), strict=True))
    return [mine if number % 4 == 0 else other for number, (mine, other) in pairs]


def shuffled(drawings: list[Drawing]) -> list[Image.Image]:
    """Each under the caption of another one."""
    order = list(range(len(drawings)))
    Random(0).shuffle(order)
    following = dict(zip(order, [*order[1:], order[0]], strict=True))
    return [drawings[following[i]].image for i in range(len(drawings))]


def noise(drawings: list[Drawing]) -> list[Image.Image]:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (len(drawings), SIZE, SIZE, 3), dtype=np.uint8)
    return [Image.fromarray(each) for each in pixels]


def grain(drawings: list[Drawing]) -> list[Image.Image]:
    """White, and not quite."""
    random = np.random.default_rng(0)
    darker = np.abs(random.normal(0, 20, (len(drawings), SIZE, SIZE, 3)))
    return [Image.fromarray((255 - each).clip(0, 255).astype(np.uint8)) for each in darker]


def blank(drawings: list[Drawing], colour: str) -> list[Image.Image]:
    return [Image.new("RGB", (SIZE, SIZE), colour) for _ in drawings]


def in_its_colour(drawings: list[Drawing]) -> list[Image.Image]:
    return [Image.new("RGB", (SIZE, SIZE), PALETTE[each.creature.colour]) for each in drawings]


def blobs(drawings: list[Drawing]) -> list[Image.Image]:
    """A spot of the caption's colour on white."""
    found = blank(drawings, "white")
    for image, each in zip(found, drawings, strict=True):
        box = (SIZE * 0.22, SIZE * 0.22, SIZE * 0.78, SIZE * 0.78)
        ImageDraw.Draw(image).ellipse(box, fill=PALETTE[each.creature.colour])
    return found


def one(drawings: list[Drawing], seed: int) -> list[Image.Image]:
    return [draw("pokemon", seed).image] * len(drawings)


BASES = {
    PLAIN_OTHERS: plain_others,
    OTHERS_ALIKE: others,
    PLAIN_OWN: plain_own,
}
ADVERSARIES = {
    "noise": Played(noise),
    "grain on white": Played(grain),
    "blank white": Played(partial(blank, colour="white")),
    "blank red": Played(partial(blank, colour="red")),
    # Their colours are those of the prompts, and the first two bases' are any.
    "blank of the caption's colour": Played(in_its_colour, OF_OTHERS),
    "a spot of the caption's colour": Played(blobs, OF_OTHERS),
    "one training picture for all": Played(partial(one, seed=0)),
    "one new drawing for all": Played(partial(one, seed=OTHERS[-1])),
    "shuffled among the captions": Played(shuffled, nearer=PLAIN),
}
HONEST = {
    "drawings of the captions": Played(own, tuple(BASES), PLAIN),
    "... of every fourth, else of others": Played(every_fourth_own, OF_OTHERS, PLAIN),
}
RENAMED = "the base itself, renamed"


@dataclass(frozen=True)
class Told:
    """What is said of a set against a base."""

    played: str
    base: str
    following: str  # of FOLLOWING
    style: str  # of STYLE
    deserved: tuple[bool, bool]  # whether it may be praised for either
    sentences: tuple[str, ...]

    @property
    def praised(self) -> tuple[bool, bool]:
        return self.following == "better", self.style == "nearer"

    @property
    def undeserved(self) -> bool:
        return any(p and not d for p, d in zip(self.praised, self.deserved, strict=True))

    @property
    def missed(self) -> bool:
        return any(d and not p for p, d in zip(self.praised, self.deserved, strict=True))


class Stage:
    """Captions, training pictures and a scorer; each set is looked at once."""

    def __init__(self, count: int, training: int = TRAINING):
        self.image_scorer = ImageScorer(Scorer.load(BUNDLED))
        self.drawings = [draw("pokemon", seed) for seed in HELD_OUT_SEEDS[:count]]
        self.reference = self._reference(training)

    def _reference(self, count: int) -> ReferenceImages:
        drawings = [draw("pokemon", seed) for seed in range(count)]
        pictures = [
            CaptionedImage(f"{i}.png", each.captions[0], partial(getattr, each, "image"))
            for i, each in enumerate(drawings)
        ]
        return reference("drawings", pictures, self.image_scorer.scorer)

    def seen(self, name: str, paint: Callable) -> Result:
        """A set as metrics.py would have looked at it."""
        captions = [each.captions[0] for each in self.drawings]
        scored = tuple(
            PromptScore(caption, (self.image_scorer.score(image, caption, 0),))
            for caption, image in zip(captions, paint(self.drawings), strict=True)
        )
        return result(ModelScores(name, None, {}, scored), None, self.reference)

    def told(self, model: Result, base: Result, deserved: Played) -> Told:
        said = sentences([base, model], [against(model, base, self.reference)], None)
        words = word_of(said[0], FOLLOWING), word_of(said[1], STYLE)
        may = base.model in deserved.follows, base.model in deserved.nearer
        return Told(model.model, base.model, *words, may, tuple(said))

    def all(self, played: dict[str, Played], bases: dict[str, Callable]) -> list[Told]:
        """Of each set against each base, and of each base against itself."""
        known = {name: self.seen(name, paint) for name, paint in bases.items()}
        found = []
        for name, each in played.items():
            model = self.seen(name, each.paint)
            found += [self.told(model, base, each) for base in known.values()]
        for name, base in known.items():
            same = replace(base, following=replace(base.following, model=RENAMED))
            found.append(self.told(same, base, Played(bases[name])))
        return found


def word_of(sentence: str, words: dict[str, str]) -> str:
    (found,) = (word for word, said in words.items() if said in sentence)
    return found
