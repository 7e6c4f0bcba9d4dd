"""Draws captioned pocket creatures of our own design: the bundled data set.

    python -m bundled.creatures --output creatures --count 833 --seed 0

writes 128 px pictures and `metadata.jsonl` (`file_name`, `text`), the layout that `datasets` calls
ImageFolder. Three looks: "pokemon" (outlines, shading, big eyes) is what the bundled model is tuned
for; "plain" (flat colour, dot eyes) is what its base model was trained on, together with the scenes
of `bundled/scenes.py`; "chalk" (coloured lines on a blackboard) is what neither has seen, for
trying out how a look is taught. A picture is a function of its look and seed alone.
"""

from __future__ import annotations

import argparse
import glob
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageFilter

from bundled import anatomy
from bundled.canvas import BACKGROUNDS, PALETTE, Canvas, lighter, vary
from core.errors import UserError, exit_with_sentence
from core.files import remove_leftovers, replaced
from core.terminal import say

LOOKS = ("pokemon", "plain", "chalk")
SHAPES = ("round", "tall", "chubby", "small", "square", "big-headed")
EARS = ("pointed", "round", "long")
TAILS = ("flame", "leaf", "lightning", "curly")
WINGS = ("feathered", "bat", "butterfly")
HELD_OUT_SEEDS = range(900_000_000, 901_000_000)  # never drawn for training


@dataclass(frozen=True)
class Creature:
    """What a creature looks like. `None`, 0 or False: the part is missing."""

    shape: str
    colour: str
    ears: str | None
    horns: int  # 0, 1 or 2
    wings: str | None
    wing_colour: str | None
    tail: str | None
    belly: bool
    pattern: str | None  # "spots" or "stripes"
    eyes: str  # "open", "closed" or "one"
    mouth: str  # "smile", "open" or "fangs"
    background: str

    @classmethod
    def random(cls, rng: Random) -> Creature:
        colour = rng.choice(list(PALETTE))
        wings = rng.choice(WINGS) if rng.random() < 0.5 else None
        other_colours = [name for name in PALETTE if name != colour]
        wing_colour = rng.choice(other_colours) if wings else None
        white = rng.random() < 0.6 and "white" not in (colour, wing_colour)  # it would vanish
        pale = [name for name in BACKGROUNDS if name != "white"]
        return cls(
            shape=rng.choice(SHAPES),
            colour=colour,
            ears=rng.choice(EARS) if rng.random() < 0.5 else None,
            horns=rng.choice((1, 2)) if rng.random() < 0.4 else 0,
            wings=wings,
            wing_colour=wing_colour,
            tail=rng.choice(TAILS) if rng.random() < 0.6 else None,
            belly=rng.random() < 0.45,
            pattern=rng.choice(("spots", "stripes")) if rng.random() < 0.4 else None,
            eyes=rng.choices(("open", "closed", "one"), (8, 1, 1))[0],
            mouth=rng.choice(("smile", "smile", "open", "fangs")),
            background="white" if white else rng.choice(pale),
        )

    def draw(self, look: str, rng: Random) -> Image.Image:
        """Paint the creature: RGB, 128 x 128. `rng` decides proportions and shades."""
        if look == "chalk":
            return chalk(self.draw("plain", rng), rng)
        background = BACKGROUNDS[self.background]
        canvas, at = Canvas(look, background), anatomy.frame(self.shape, rng)
        body = vary(PALETTE[self.colour], rng)
        if canvas.outlined:
            anatomy.shadow(canvas, at, background)
        if self.wings:
            anatomy.wings(canvas, at, self.wings, vary(PALETTE[self.wing_colour], rng), rng)
        if self.tail:
            anatomy.tail(canvas, at, self.tail, body, rng)
        anatomy.feet(canvas, at, body)
        if self.ears:
            anatomy.ears(canvas, at, self.ears, body, rng)
        canvas.shape(at.body, body)
        if self.belly:
            anatomy.belly(canvas, at, lighter(body, 0.62 if sum(body) > 240 else 0.5))
        anatomy.arms(canvas, at, body, raised=rng.random() < 0.4)
        if at.head:
            canvas.shape(at.head, body)
        if self.pattern:
            anatomy.pattern(canvas, at, self.pattern, anatomy.second_shade(body, rng), rng)
        if self.horns:
            anatomy.horns(canvas, at, self.horns)
        iris = vary(PALETTE[rng.choice(("red", "blue", "green", "purple", "brown"))], rng)
        anatomy.eyes(canvas, at, self.eyes, iris)
        if canvas.outlined or rng.random() < 0.3:
            anatomy.cheeks(canvas, at)
        anatomy.mouth(canvas, at, self.mouth)
        return canvas.finished()

    def parts(self) -> dict[str, str]:
        """The nameable parts beside shape and colour, as they stand in a caption."""
        found = {
            "ears": f"{self.ears} ears" if self.ears else None,
            "horns": {1: "a horn", 2: "two horns"}.get(self.horns),
            "wings": f"{self.wing_colour} wings" if self.wings else None,
            "wing_kind": f"{self.wings} wings" if self.wings else None,
            "tail": f"a {self.tail} tail" if self.tail else None,
            "belly": "a light belly" if self.belly else None,
            "pattern": self.pattern,
            "eyes": {"closed": "closed eyes", "one": "one big eye"}.get(self.eyes),
            "mouth": {"open": "an open mouth", "fangs": "fangs"}.get(self.mouth),
        }
        return {name: words for name, words in found.items() if words}

    def caption(self, look: str, rng: Random) -> str:
        """A caption in the manner of an image captioner: some of the parts, in any order."""
        noun = rng.choice(NOUNS[look])
        shape = f"{self.shape} " if rng.random() < 0.5 else ""
        parts = self.parts()
        if self.wings:  # "red bat wings" where both are told
            kind, told = parts.pop("wing_kind"), rng.random()
            if told < 0.2:
                parts["wings"] = f"{self.wing_colour} {kind}"
            elif told < 0.3:
                parts["wings"] = rng.choice((kind, "wings"))
        if self.ears and rng.random() < 0.25:
            parts["ears"] = "ears"
        if self.horns and rng.random() < 0.3:
            parts["horns"] = "horns" if self.horns == 2 else "one horn"
        names = list(parts)
        rng.shuffle(names)
        # Often most of them: what a caption leaves open, a model cannot learn to follow.
        count = max(rng.randint(0, len(names)), rng.randint(0, len(names)))
        told = [parts[name] for name in names[:count]]
        sentence = f"{rng.choice(OPENINGS[look])} {shape}{self.colour} {noun}"
        if told:
            sentence += f" with {join(told)}"
        if look != "chalk" and self.background != "white" and rng.random() < 0.5:
            sentence += f" on a {self.background} background"
        return with_article(sentence)


OPENINGS = {
    "pokemon": (
        "a drawing of a",
        "a drawing of a",
        "a cartoon drawing of a",
        "a picture of a",
        "a",
    ),
    "plain": ("a flat picture of a", "a flat picture of a", "a simple picture of a", "a"),
    "chalk": ("a chalk drawing of a",),
}
NOUNS = {
    "pokemon": ("pokemon", "creature", "monster", "pokemon"),
    "plain": ("creature", "creature", "monster"),
    "chalk": ("creature", "monster"),
}

BOARD = (28, 58, 48)  # of the blackboard
GRAIN = 0.35  # of the chalk: how much of the board shows through


def chalk(picture: Image.Image, rng: Random) -> Image.Image:
    """The outlines of a flat picture in chalk of its colours: RGB of the same size."""
    colours = np.asarray(picture, np.float32)
    blurred = picture.filter(ImageFilter.GaussianBlur(0.8))
    edges = np.asarray(blurred.filter(ImageFilter.FIND_EDGES), np.float32).max(axis=2)
    edges[[0, -1]] = edges[:, [0, -1]] = 0  # the filter sees the frame as an edge
    lines = np.asarray(Image.fromarray(edges.clip(0, 255).astype(np.uint8)).filter(
        ImageFilter.MaxFilter(3)), np.float32)  # fmt: skip
    grain = np.random.default_rng(rng.getrandbits(64)).random(lines.shape, np.float32)
    strength = (lines / 90).clip(0, 1) * (1 - GRAIN * grain)
    near = np.asarray(picture.filter(ImageFilter.ModeFilter(5)), np.float32)
    pale = 0.45 * np.minimum(colours, near) + 0.55 * 255
    drawn = BOARD + strength[..., None] * (pale - BOARD)
    return Image.fromarray(drawn.round().clip(0, 255).astype(np.uint8))


def join(words: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def with_article(sentence: str) -> str:
    """ "an" where a vowel follows; of our adjectives, orange alone has one."""
    return sentence.replace("a orange", "an orange")


@dataclass(frozen=True)
class Drawing:
    """A captioned picture and the truth about it."""

    image: Image.Image  # RGB, 128 x 128
    captions: tuple[str, ...]  # several that are true of the picture; the first is its `text`
    creature: Creature


def draw(look: str, seed: int, captions: int = 1) -> Drawing:
    """The drawing number `seed` of a look. Raises UserError for an unknown look."""
    if look not in LOOKS:
        raise UserError(f"--look: {look!r} is unknown. Use one of: {', '.join(LOOKS)}.")
    rng = rng_of(look, seed)
    creature = Creature.random(rng)
    image = creature.draw(look, rng)
    return Drawing(image, tuple(creature.caption(look, rng) for _ in range(captions)), creature)


def rng_of(look: str, seed: int) -> Random:
    """What decides drawing number `seed`: first its creature, then how it is painted."""
    return Random(f"{look} creature {seed}")


def held_out_captions(count: int, look: str = "pokemon") -> list[str]:
    """Captions of drawings that are kept out of every training set."""
    rngs = (rng_of(look, seed) for seed in HELD_OUT_SEEDS[:count])
    return [Creature.random(rng).caption(look, rng) for rng in rngs]


def write_folder(folder: Path, drawings: Iterator[Drawing]) -> int:
    """Write pictures and `metadata.jsonl` into a new folder; returns how many. The folder appears
    under its name when it is whole.

    Raises UserError where the folder exists already.
    """
    if folder.exists():
        raise UserError(f"--output: {folder} exists already. Delete it or name another folder.")
    count = 0
    remove_leftovers(folder.parent, glob.escape(folder.name))
    with replaced(folder, durable=False) as staged:
        staged.mkdir(parents=True)
        with open(staged / "metadata.jsonl", "w", encoding="utf-8") as metadata:
            for count, drawing in enumerate(drawings, start=1):
                name, texts = f"{count - 1:06d}.png", drawing.captions
                drawing.image.save(staged / name)
                text = texts[0] if len(texts) == 1 else list(texts)
                metadata.write(json.dumps({"file_name": name, "text": text}) + "\n")
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a captioned data set of pocket creatures.")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; must be new")
    parser.add_argument("--count", type=int, default=833, help="how many pictures (default 833)")
    parser.add_argument(
        "--seed", type=int, default=0, help="number of the first picture (default 0)"
    )
    parser.add_argument("--look", default="pokemon", help=f"{', '.join(LOOKS)} (default pokemon)")
    options = parser.parse_args()
    if options.count < 1:
        raise UserError(f"--count: {options.count} pictures cannot be drawn. Ask for at least 1.")
    first = options.seed * 1_000_000  # so that the sets of two seeds share no picture
    drawings = (draw(options.look, first + i) for i in range(options.count))
    say(f"{write_folder(options.output, drawings)} pictures in {options.output}")


if __name__ == "__main__":
    exit_with_sentence(main)
