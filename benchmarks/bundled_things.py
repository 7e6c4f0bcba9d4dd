"""Does the base model draw the things that a prompt names, in their colours, places and numbers?

    python -m benchmarks.bundled_things --model DIR --icons DIR/icons

generates pictures of prompts that no training run has seen (of most, the combination was held out)
and has a classifier name what they show. It looks at real drawings of the same prompts too: that is
what a perfect model would score. Results: a table, and JSON and a sheet of pictures beside it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageDraw

from benchmarks.things_judge import PLACES, Judge
from bundled.canvas import PALETTE
from bundled.icons import Icons
from bundled.scenes import Item, Scene, kept_out, random_background
from bundled.words import noun_phrase
from core.errors import exit_with_sentence
from sampling.generator import Generator
from sampling.request import Request

BARS = {  # what the bundled model should reach; None: told, not asked
    "thing": 0.90, "colour of a thing": 0.85, "two things": 0.75, "their places": 0.75,
    "count": 0.75,
}  # fmt: skip
WORDS = {"beside": "{} left of {}", "above": "{} above {}", None: "{}"}
LABEL, GAP = 16, 4  # pixels of a sheet: above pictures, and between them
HALVES = ("left", "right", "top", "bottom")
EVERYDAY = Path(__file__).parent.parent / "bundled" / "everyday_prompts.txt"


@dataclass(frozen=True)
class Case:
    """A prompt, the scene that it asks for, and what is measured by it."""

    kind: str
    scene: Scene

    def prompt(self, icons: Icons) -> str:
        """By first names, in the fewest words."""
        rng = Random(0)  # of one name there is nothing to choose
        phrases = [
            noun_phrase(icons.things[item.thing].names[:1], item.count, "", item.colour, rng)
            for item in self.scene.items
        ]
        return WORDS[self.scene.relation].format(*phrases)


def cases(icons: Icons, count: int) -> Iterator[Case]:
    """Each thing once; then `count` of each kind, of combinations that were held out."""
    known = range(len(icons.things))
    for thing in known:
        yield Case("thing", scene_of(icons, (Item(thing),), None))
    for kind, candidates in (
        ("colour", coloured(icons, known)),
        ("two", paired(icons, known)),
        ("count", counted(icons, known)),
    ):
        scenes = [scene for _, scene in zip(range(count), candidates, strict=False)]
        yield from (Case(kind, scene) for scene in scenes)


def scene_of(icons: Icons, items: tuple[Item, ...], relation: str | None) -> Scene:
    rng = Random(repr((items, relation)))
    background = "white"
    scene = Scene(items, relation, background)
    return replace(scene, background=random_background(icons, items, rng))


def coloured(icons: Icons, known: range) -> Iterator[Scene]:
    """Things in colours in which no training picture shows them, in a random order."""
    pairs = [
        (thing, colour) for thing in known for colour in PALETTE
        if icons.things[thing].paintable and icons.things[thing].colour != colour
        and kept_out(f"{colour} {icons.things[thing].names[0]}")
    ]  # fmt: skip
    for thing, colour in Random(1).sample(pairs, len(pairs)):
        yield scene_of(icons, (Item(thing, colour),), None)


def paired(icons: Icons, known: range) -> Iterator[Scene]:
    """Two things in places in which no training picture shows them."""
    rng = Random(2)
    while True:
        items = tuple(Item(thing) for thing in rng.sample(known, 2))
        scene = scene_of(icons, items, rng.choice(("beside", "above")))
        if scene.held_out(icons):
            yield scene


def counted(icons: Icons, known: range) -> Iterator[Scene]:
    """One to three of a thing; two and three where that was held out."""
    rng = Random(3)
    while True:
        item = Item(rng.choice(known), count=rng.choice((1, 2, 3)))
        scene = scene_of(icons, (item,), None)
        if item.count == 1 or scene.held_out(icons):
            yield scene


def judged(judge: Judge, several: list[Case], pictures: list[Image.Image]) -> dict[str, float]:
    """Shares of what the prompts name that the pictures show."""
    hits = {name: [] for name in BARS}
    asked = [(number, part) for number, case in enumerate(several)
             for part in (HALVES if case.kind == "two" else ("whole",))]  # fmt: skip
    images, parts = [pictures[number] for number, _ in asked], [part for _, part in asked]
    seen = dict(zip(asked, judge.things(images, parts), strict=True))
    counts = judge.counts(pictures)
    for number, case in enumerate(several):
        wanted, whole = case.scene.items, seen.get((number, "whole"))
        if case.kind == "thing":
            hits["thing"].append(whole[0] == wanted[0].thing)
        elif case.kind == "colour":
            hits["colour of a thing"].append(whole == (wanted[0].thing, wanted[0].colour))
        elif case.kind == "two":
            named = [item.thing for item in wanted]
            found = {relation: [seen[number, part][0] for part in PLACES[relation]]
                     for relation in ("beside", "above")}  # fmt: skip
            hits["their places"].append(found[case.scene.relation] == named)
            hits["two things"].append(sorted(named) in map(sorted, found.values()))
        else:
            hits["count"].append(counts[number] == wanted[0].count)
    return {name: float(np.mean(values)) for name, values in hits.items()}


def accuracy(judge: Judge, icons: Icons) -> float:
    """Share of real drawings, three of each thing, of which the judge names the thing rightly."""
    found = []
    for thing in range(len(icons.things)):
        scene = scene_of(icons, (Item(thing),), None)
        images = [scene.draw(icons, Random(f"real {thing} {i}")) for i in range(3)]
        found += [seen == thing for seen, _ in judge.things(images, ["whole"] * 3)]
    return float(np.mean(found))


def main() -> None:
    options = parse()
    generator, icons = Generator.load(options.model), Icons.load(options.icons)
    vae = AutoencoderKL.from_pretrained(options.model, subfolder="vae", dtype=torch.float32)
    judge = Judge(icons, vae.eval(), options.work)
    several = list(cases(icons, options.cases))
    pictures = drawn(generator, [case.prompt(icons) for case in several])
    real = [case.scene.draw(icons, Random(f"bound {i}")) for i, case in enumerate(several)]
    result = {
        "model": generator.name, "prompts": len(several),
        "classifier": accuracy(judge, icons),
        "generated": judged(judge, several, pictures), "drawn": judged(judge, several, real),
    }  # fmt: skip
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "things.json").write_text(json.dumps(result, indent=2) + "\n")
    sheet(generator, options.seeds).save(options.output / "everyday.png")
    print(table(result))


def drawn(generator: Generator, prompts: list[str]) -> list[Image.Image]:
    requests = [Request(prompt, seed=seed) for seed, prompt in enumerate(prompts)]
    return [picture.image for picture in generator.pictures(requests)]


def sheet(generator: Generator, seeds: int) -> Image.Image:
    """The everyday prompts by so many seeds, three prompts to a row, each above its pictures."""
    prompts = EVERYDAY.read_text(encoding="utf-8").splitlines()
    requests = [Request(prompt, seed=seed) for prompt in prompts for seed in range(seeds)]
    images = [picture.image for picture in generator.pictures(requests)]
    width, height = seeds * (images[0].width + GAP), images[0].height + LABEL + GAP
    page = Image.new("RGB", (3 * width, math.ceil(len(prompts) / 3) * height), "white")
    pen = ImageDraw.Draw(page)
    for number, image in enumerate(images):
        row, place = divmod(number, 3 * seeds)
        left, top = place * (image.width + GAP), row * height
        page.paste(image, (left, top + LABEL))
        if place % seeds == 0:
            pen.text((left, top), prompts[number // seeds], fill="black", font_size=LABEL - 3)
    return page


def table(result: dict) -> str:
    rows = [f"{result['model']}, {result['prompts']} prompts", ""]
    rows.append("| measured | generated | real drawings | bar |\n| --- | --- | --- | --- |")
    rows += [
        f"| {name} | {result['generated'][name]:.1%} | {result['drawn'][name]:.1%} | {bar:.0%} |"
        for name, bar in BARS.items()
    ]
    rows.append(f"\nThe classifier names {result['classifier']:.1%} of real drawings rightly.")
    return "\n".join(rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--model", default="bundled/base-model")
    add("--icons", type=Path, required=True, help="what bundled.base rendered: WORK/icons")
    add("--cases", type=int, default=150, help="prompts of each kind but single things")
    add("--seeds", type=int, default=3, help="pictures of each everyday prompt")
    add("--work", type=Path, default=Path("outputs/things_judge"))
    add("--output", type=Path, default=Path("outputs/bundled_things"))
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_sentence(main)
