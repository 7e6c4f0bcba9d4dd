"""A data set of a real style: the things of the base model in the second look of their designers.

    python -m bundled.second_look --work DIR --output outputs/second-look

needs what the recipe of the base model brought into DIR (see bundled.base). It writes 600 captioned
pictures to learn from, and in a folder beside them those of all other things, which a model that
has learned the look can be compared with: the truth, which demonstrations lack.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from random import Random

from PIL import Image

from bundled.icons import SIDE, Icons, build, build_second
from bundled.words import noun_phrase
from core.errors import UserError, exit_with_sentence
from core.files import replaced
from core.terminal import say

LEARNED = 600
MARGIN = 8  # pixels around a thing


def main() -> None:
    options = parse()
    if options.output.exists():
        raise UserError(f"{options.output} is there already; delete it or choose another --output.")
    first, second = options.work / "icons", options.work / "icons-3d"
    build(options.work, first)
    build_second(options.work, first, second)
    icons = Icons.load(second)
    order = Random(0).sample(range(len(icons.things)), len(icons.things))
    with replaced(options.output) as staged:
        write(icons, order[:LEARNED], staged / "train")
        write(icons, order[LEARNED:], staged / "held-out")
        shutil.copy(staged / "held-out" / "metadata.jsonl", staged / "held-out.jsonl")
    say(f"{LEARNED} pictures to learn, {len(order) - LEARNED} to compare with, in "
          f"{options.output}.")  # fmt: skip


def write(icons: Icons, numbers: list[int], folder: Path) -> None:
    """A folder of captioned pictures."""
    folder.mkdir(parents=True)
    rows = []
    for number in numbers:
        name = f"{number:04}.png"
        picture(icons, number).save(folder / name)
        rows.append(json.dumps({"file_name": name, "text": caption(icons, number)}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def picture(icons: Icons, number: int) -> Image.Image:
    """The thing on white, RGB, SIDE x SIDE."""
    canvas = Image.new("RGB", (SIDE, SIDE), "white")
    inside = SIDE - 2 * MARGIN
    small = icons.picture(number).resize((inside, inside), Image.Resampling.LANCZOS)
    canvas.paste(small, (MARGIN, MARGIN), small)
    return canvas


def caption(icons: Icons, number: int) -> str:
    return f"a 3d picture of {noun_phrase(icons.things[number].names[:1], 1, '', None, Random(0))}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="where the packages are")
    parser.add_argument("--output", type=Path, default=Path("outputs/second-look"))
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_sentence(main)
