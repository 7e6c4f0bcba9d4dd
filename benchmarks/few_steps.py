"""What does a model lose that draws in four steps of one pass what its teacher draws in 20 of two?

    python -m benchmarks.few_steps

draws captions of creatures that no run has seen, and prompts of other things, at the same seeds by
the bundled model in 20 steps, in as few steps as the fast one, and by the fast one. The bundled
scorer says how well they follow, pixels whether the body has the colour that is named. Seconds are
those of this run, one picture at a time. A table, and a sheet of pictures and JSON beside it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image

from bundled import creatures
from bundled.creatures import Creature
from bundled.pixels import body_colour
from core.errors import UserError, exit_with_sentence
from core.paths import ROOT
from core.statistics import bootstrap_interval
from evaluation.clip_score import Scorer
from evaluation.prompts import read_prompts
from sampling.few_steps import fast_lora_of
from sampling.generator import DEFAULT_MODEL, Generator
from sampling.request import Request

SCORER = f"local-dir:{ROOT / 'bundled' / 'clip'}"
COLUMNS = 8  # of the sheet


def main() -> None:
    options = parse()
    if (lora := fast_lora_of(options.model)) is None:
        raise UserError(f"{options.model} has no LoRA for few steps. See docs/few_steps.md.")
    plain = Generator.load(options.model)
    few = {"steps": lora.settings["steps"]}
    ways = {
        "teacher, 20 steps": (plain, {}),
        "teacher, few steps": (plain, few),
        "few steps, no guidance": (plain, lora.settings),
        "fast": (Generator.load_fast(lora, options.model), lora.settings),
    }
    sets = {
        "following": creatures.held_out_captions(options.prompts),
        "things": list(read_prompts("things").prompts)[: options.prompts],
    }
    scorer, rows, sheets = Scorer.load(SCORER), {}, []
    for name, (generator, settings) in ways.items():
        rows[name], pictures = row(generator, settings, sets, scorer)
        sheets.append(sheet(pictures[: 4 * COLUMNS]))
    compare(rows)
    options.output.mkdir(parents=True, exist_ok=True)
    for name, image in zip(ways, sheets, strict=True):
        image.save(options.output / f"{name.replace(', ', ' ').replace(' ', '-')}.png")
    (options.output / "few_steps.json").write_text(json.dumps(rows, indent=2) + "\n")
    print(table(rows))


def row(
    generator: Generator, settings: dict, sets: dict[str, list[str]], scorer: Scorer
) -> tuple[dict, list[Image.Image]]:
    """The figures of a way to draw, and its pictures."""
    found, drawn = {}, []
    list(generator.pictures([Request("warm", **settings)]))
    begun = time.monotonic()
    for name, prompts in sets.items():
        pictures = [
            next(iter(generator.pictures([Request(text, seed=place, **settings)]))).image
            for place, text in enumerate(prompts)
        ]
        scores = map(scorer.score, pictures, prompts)
        found[f"{name} scores"] = [round(score, 3) for score in scores]
        drawn += pictures
    found["seconds"] = (time.monotonic() - begun) / len(drawn)
    named = [Creature.random(creatures.rng_of("pokemon", seed)).colour
             for seed in creatures.HELD_OUT_SEEDS[: len(sets["following"])]]  # fmt: skip
    found["body colour"] = float(np.mean([
        body_colour(picture) == colour
        for picture, colour in zip(drawn, named, strict=False)
    ]))  # fmt: skip
    return found, drawn


def compare(rows: dict[str, dict]) -> None:
    """Add means, and differences from the first row with their 95 % intervals."""
    first = next(iter(rows.values()))
    for found in rows.values():
        for name in ("following", "things"):
            ours, theirs = found[f"{name} scores"], first[f"{name} scores"]
            found[name] = float(np.mean(ours))
            differences = [a - b for a, b in zip(ours, theirs, strict=True)]
            found[f"{name} difference"] = float(np.mean(differences))
            found[f"{name} interval"] = bootstrap_interval(differences)
        found["times as fast"] = first["seconds"] / found["seconds"]


def table(rows: dict[str, dict]) -> str:
    lines = [f"{'':24}{'following':>28}{'things':>28}{'body colour':>13}{'s':>7}{'times':>7}"]
    for name, found in rows.items():
        cells = [f"{name:24}"]
        for kind in ("following", "things"):
            interval = found[f"{kind} interval"]
            span = f"{interval[0]:+.1f} to {interval[1]:+.1f}" if interval else ""
            cells.append(f"{found[kind]:8.1f} ({span})".rjust(28))
        cells.append(f"{found['body colour']:13.0%}{found['seconds']:7.2f}")
        lines.append("".join([*cells, f"{found['times as fast']:7.1f}"]))
    return "\n".join(lines)


def sheet(pictures: list[Image.Image]) -> Image.Image:
    side = pictures[0].width
    whole = Image.new("RGB", (COLUMNS * side, -(-len(pictures) // COLUMNS) * side), "white")
    for place, picture in enumerate(pictures):
        whole.paste(picture, (place % COLUMNS * side, place // COLUMNS * side))
    return whole


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What do few steps cost?")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="with a LoRA in its folder fast/")
    parser.add_argument("--prompts", type=int, default=64, help="of each set (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("outputs/few_steps"), metavar="DIR")
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_sentence(main)
