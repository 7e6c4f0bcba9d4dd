"""What does a picture lose by guidance in part of its steps, and by deep features used again?

    python -m benchmarks.shortcuts

draws captions of creatures that no run has seen, and prompts of other things, at the same seeds by
the bundled model in 20 steps, as it is and with each of WAYS. The bundled scorer says how well they
follow, pixels whether the body has the colour that is named. Seconds are those of this run, one
picture at a time. A table, and a sheet of pictures and JSON beside it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.few_steps import COLUMNS, SCORER, compare, row, sheet, table
from bundled import creatures
from core.errors import exit_with_sentence
from evaluation.clip_score import Scorer
from evaluation.prompts import read_prompts
from sampling.backends.choice import AUTO
from sampling.generator import DEFAULT_MODEL, Generator

WAYS: dict[str, dict] = {
    "20 steps": {},
    "10 steps": {"steps": 10},
    "guidance up to 0.6": {"guidance_stop": 0.6},
    "guidance up to 0.4": {"guidance_stop": 0.4},
    "whole UNet every 2": {"cache_interval": 2},
    "whole UNet every 3": {"cache_interval": 3},
    "every 2, guidance 0.6": {"cache_interval": 2, "guidance_stop": 0.6},
}


def main() -> None:
    options = parse()
    generator = Generator.load(options.model, backend=options.backend)
    sets = {
        "following": creatures.held_out_captions(options.prompts),
        "things": list(read_prompts("things").prompts)[: options.prompts],
    }
    scorer, rows = Scorer.load(SCORER), {}
    options.output.mkdir(parents=True, exist_ok=True)
    for name, settings in WAYS.items():
        rows[name], pictures = row(generator, settings, sets, scorer)
        print(f"{name}: {rows[name]['seconds']:.2f} s a picture", flush=True)
        sheet(pictures[: 4 * COLUMNS]).save(options.output / f"{name.replace(' ', '-')}.png")
    compare(rows)
    (options.output / "shortcuts.json").write_text(json.dumps(rows, indent=2) + "\n")
    print(table(rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What do shortcuts cost?")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--backend", default=AUTO)
    parser.add_argument("--prompts", type=int, default=64, help="of each set (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("outputs/shortcuts"), metavar="DIR")
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_sentence(main)
