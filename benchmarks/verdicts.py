"""Are the verdicts of metrics.py right as often as they say, and does it praise what is worthless?

    python -m benchmarks.verdicts

simulates scores, features and votes in which nothing differs, and counts how often a difference is
claimed; then in which something does, and counts how often it is found. Then it plays pictures that
nobody should praise (noise, blank paper, one picture for all, ...) as a model's, and reads what is
said of them. Results: tables, and JSON beside them. Eleven minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import numpy as np

from benchmarks import verdict_rates as rates
from benchmarks.verdict_adversaries import ADVERSARIES, BASES, HONEST, Stage, Told
from core.errors import UserError, exit_with_sentence

PICTURES = 64  # of a set
PARTS = {
    "Following, keeping: both sides of one law": rates.equal_scores,
    "Following, keeping: equal means, and nothing else": rates.equal_means,
    "Following, keeping: the model is better": rates.better_scores,
    "Following: higher scores of pictures that have nothing to do with their prompts": (
        rates.unrelated
    ),
    "Following: several models, all as good as their base": rates.several,
    "Following: the best of several, all as good as their base": rates.best,
    "Style: both sides of one source": rates.equal_styles,
    "Style: one side is farther": rates.nearer_styles,
    "Style: pictures of different prompts are more alike than others": rates.collapses,
    "Blind vote, looked at after every vote": rates.blind,
    "Variety: pictures of different prompts are less varied than others": rates.varied,
}


def main() -> None:
    options = parse()
    content = {"trials": options.trials, "seed": options.seed, "rates": {}}
    made = np.random.default_rng(options.seed).spawn(len(PARTS))  # no part changes another
    for (title, part), random in zip(PARTS.items(), made, strict=True):
        print(f"\n{title}\n")
        content["rates"][title] = shown(part(options.trials, random))
    print(f"\nPictures of {PICTURES} prompts, by base: following, style\n")
    told = Stage(PICTURES).all(ADVERSARIES | HONEST, BASES)
    shown(by_base(told))
    undeserved = sum(each.undeserved for each in told)
    missed = sum(each.missed for each in told if each.played in HONEST)
    print(
        f"\n{undeserved} of {len(told)} are praised undeservedly; {missed} honest ones are missed."
    )
    content["pictures"] = [asdict(each) | {"undeserved": each.undeserved} for each in told]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(content, indent=2, default=asdict) + "\n")


def shown(rows: Iterable[dict]) -> list[dict]:
    """Print rows as they come, as a table whose columns are those of the first; return them."""
    found = []
    for row in rows:
        if not found:
            print(f"| {' | '.join(row)} |\n|{' --- |' * len(row)}")
        found.append(row)
        print(f"| {' | '.join(map(str, row.values()))} |", flush=True)
    return found


def by_base(told: list[Told]) -> Iterator[dict]:
    """A row for each set of pictures; praise that is not deserved is marked."""
    for played, each in groupby(told, key=lambda one: one.played):
        several = list(each)
        yield {"pictures": played} | {
            one.base: f"{one.following}, {one.style}{' (!)' if one.undeserved else ''}"
            for one in several
        }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1000, help="of each rate (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("outputs/verdicts.json"))
    options = parser.parse_args()
    if options.trials < 1:
        raise UserError(f"--trials is {options.trials}. Give 1 or more.")
    return options


if __name__ == "__main__":
    exit_with_sentence(main)
