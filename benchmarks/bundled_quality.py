"""Does the bundled model draw what the prompt says, and draw it well?

    python -m benchmarks.bundled_quality

generates a picture for each of 240 prompts that no training run has seen, and has body colour read
from pixels and parts judged by a classifier. The same judges look at real drawings of the same
prompts: that is what a perfect model would score. Results: a table, and JSON beside it. A model
that misses a bar ends it with exit code 2.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from benchmarks import attributes
from bundled import creatures
from bundled.creatures import Creature
from bundled.pixels import body_colour
from core.errors import UserError, exit_with_sentence
from sampling.generator import DEFAULT_MODEL, Generator
from sampling.request import Request

LOOKS = {"sd-pokemon-model": "pokemon", "base-model": "plain"}
JUDGED_SEEDS = range(70_000_000, 70_001_000)  # drawings on which the judges themselves are judged
PROMPT_SEEDS = creatures.HELD_OUT_SEEDS
PARTS = ("ears", "horns", "wings", "tail")
VARIETY_PROMPT = "{} red creature with wings"
BARS = {  # what the bundled model must reach
    "body colour": 0.95, "named part": 0.85, "wing colour": 0.80, "classifier": 0.97,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A prompt, what it names, and a real drawing that shows it."""

    prompt: str
    named: dict  # attribute -> value; "colour" beside those of attributes.HEADS
    drawing: Image.Image


def case(look: str, seed: int) -> Case:
    """Prompt number `seed`: the colour and one to three parts of a creature."""
    rng = creatures.rng_of(look, seed)
    creature = Creature.random(rng)
    drawing = creature.draw(look, rng)
    words, facts = creature.parts(), attributes.truth(creature)
    present = [name for name in PARTS if name in words]
    told = rng.sample(present, min(len(present), rng.randint(1, 3)))
    named = {name: facts[name] for name in told} | {"colour": creature.colour}
    if "wings" in told:
        named["wing_colour"] = creature.wing_colour
    prompt = f"{creatures.OPENINGS[look][0]} {creature.colour} creature"
    prompt += f" with {creatures.join([words[name] for name in told])}" if told else ""
    return Case(creatures.with_article(prompt), named, drawing)


def judged(cases: list[Case], pictures: list[Image.Image], classifier) -> dict[str, float]:
    """Shares of what the prompts name that the pictures show."""
    shown = classifier.judge(pictures)
    hits = {"body colour": [], "wing colour": [], "ears": [], "horns": [], "wings": [], "tail": []}
    for one, picture, seen in zip(cases, pictures, shown, strict=True):
        hits["body colour"].append(body_colour(picture) == one.named["colour"])
        for name, value in one.named.items():
            if name != "colour":
                hits[name.replace("_", " ")].append(seen[name] == value)
    parts = [hit for name in PARTS for hit in hits[name]]
    return {name: float(np.mean(values)) for name, values in hits.items()} | {
        "named part": float(np.mean(parts)),
        "sharpness": float(np.mean([sharpness(picture) for picture in pictures])),
    }


def sharpness(picture: Image.Image) -> float:
    """Mean absolute difference of neighbouring pixels, 0..255: low for a blur."""
    pixels = np.asarray(picture, dtype=float)
    return (np.abs(np.diff(pixels, axis=0)).mean() + np.abs(np.diff(pixels, axis=1)).mean()) / 2


def variety(pictures: list[Image.Image]) -> float:
    """Mean absolute pixel difference over all pairs, 0..255: 0 where all pictures are one."""
    pixels = [np.asarray(picture, dtype=float) for picture in pictures]
    return float(np.mean([np.abs(a - b).mean() for a, b in combinations(pixels, 2)]))


def same_kind(look: str, count: int) -> list[Image.Image]:
    """Real drawings of red creatures with wings, for comparison with pictures of that prompt."""
    found = []
    for seed in PROMPT_SEEDS[100_000:]:
        rng = creatures.rng_of(look, seed)
        creature = Creature.random(rng)
        if creature.colour == "red" and creature.wings:
            found.append(creature.draw(look, rng))
        if len(found) == count:
            return found
    raise RuntimeError("There are too few red creatures with wings.")


def classifier_accuracy(classifier, look: str) -> float:
    """Share of parts (ears, horns, wings, tail) that it names rightly on real drawings."""
    rngs = [creatures.rng_of(look, seed) for seed in JUDGED_SEEDS]
    real = [Creature.random(rng) for rng in rngs]
    seen = classifier.judge([one.draw(look, rng) for one, rng in zip(real, rngs, strict=True)])
    facts = [attributes.truth(one) for one in real]
    return float(np.mean([
        found[name] == fact[name]
        for found, fact in zip(seen, facts, strict=True) for name in PARTS
    ]))  # fmt: skip


def main() -> None:
    options = parse()
    generator = Generator.load(options.model)
    look = LOOKS.get(Path(options.model).name, "pokemon")
    vae = AutoencoderKL.from_pretrained(options.model, subfolder="vae", dtype=torch.float32)
    classifier = attributes.trained(options.work, vae.eval())
    cases = [case(look, seed) for seed in PROMPT_SEEDS[: options.prompts]]
    requests = [Request(one.prompt, seed=i) for i, one in enumerate(cases)]
    pictures = [picture.image for picture in generator.pictures(requests)]
    prompt = VARIETY_PROMPT.format(creatures.OPENINGS[look][0])
    red = [p.image for p in generator.pictures([Request(prompt, seed=5000 + i) for i in range(16)])]
    result = {
        "model": generator.name,
        "prompts": len(cases),
        "classifier": classifier_accuracy(classifier, look),
        "generated": judged(cases, pictures, classifier) | {"variety": variety(red)},
        "drawn": judged(cases, [one.drawing for one in cases], classifier)
        | {"variety": variety(same_kind(look, 16))},
    }
    options.output.mkdir(parents=True, exist_ok=True)
    grid(pictures[:32], 8).save(options.output / f"{generator.name}.png")
    (options.output / f"{generator.name}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))
    if missed := below_bars(result):
        raise UserError(f"{generator.name} misses its bars: {', '.join(missed)}. See the table.")


def below_bars(result: dict) -> list[str]:
    reached = {**result["generated"], "classifier": result["classifier"]}
    return [name for name, bar in BARS.items() if reached[name] < bar]


def grid(pictures: list[Image.Image], columns: int) -> Image.Image:
    side = pictures[0].width
    sheet = Image.new("RGB", (columns * side, -(-len(pictures) // columns) * side), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * side, i // columns * side))
    return sheet


def table(result: dict) -> str:
    rows = [f"{result['model']}, {result['prompts']} held-out prompts", ""]
    rows.append("| measured | generated | real drawings | bar |\n| --- | --- | --- | --- |")
    for name, drawn in result["drawn"].items():
        made = result["generated"][name]
        bar = f"{BARS[name]:.0%}" if name in BARS else ""
        if name in ("sharpness", "variety"):
            rows.append(f"| {name} (0..255) | {made:.1f} | {drawn:.1f} | |")
        else:
            rows.append(f"| {name} | {made:.1%} | {drawn:.1%} | {bar} |")
    rows.append(f"\nThe classifier names {result['classifier']:.1%} of the parts of 1,000 real "
                f"drawings rightly (bar: {BARS['classifier']:.0%}).")  # fmt: skip
    return "\n".join(rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default=str(DEFAULT_MODEL))
    parser.add_argument("--prompts", type=int, default=240)
    parser.add_argument("--work", type=Path, default=Path("outputs/attributes"))
    parser.add_argument("--output", type=Path, default=Path("outputs/bundled_quality"))
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_sentence(main)
