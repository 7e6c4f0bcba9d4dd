"""Does a fine-tune draw things in a style in which it has never seen them?

    python -m bundled.second_look --work DIR
    python train_text_to_image.py ... --output_dir outputs/second-look-model   (docs/base_model.md)
    python -m benchmarks.second_look

puts three rows side by side, of things that were held out: the true pictures, the base model, and
the fine-tuned one at the same prompts and seeds. Writes outputs/second_look.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from benchmarks.bundled_quality import grid
from core.bounded_json import loads
from core.errors import exit_with_sentence
from sampling.generator import Generator
from sampling.request import Request


def main() -> None:
    options = parse()
    lines = (options.data / "held-out.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [loads(line) for line in lines[options.first : options.first + options.things]]
    shown = [Image.open(options.data / "held-out" / row["file_name"]) for row in rows]
    requests = [Request(row["text"], seed=number) for number, row in enumerate(rows)]
    for model in (options.base, options.model):
        shown += [picture.image for picture in Generator.load(model).pictures(requests)]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    grid(shown, len(rows)).save(options.output)
    print(", ".join(row["text"] for row in rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, default=Path("outputs/second-look"))
    add("--base", default="bundled/base-model")
    add("--model", default="outputs/second-look-model")
    add("--things", type=int, default=10, help="how many (%(default)s)")
    add("--first", type=int, default=0, help="of the held-out ones (%(default)s)")
    add("--output", type=Path, default=Path("outputs/second_look.png"))
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_sentence(main)
