"""What do the bundled models draw? The pictures of the README and of the model's card.

    python -m benchmarks.pictures

writes `strip.png` (the fine-tuned model), `before_after.png` (base above, fine-tuned below, at the
same prompts and seeds) and, for docs/how_it_works.md, `from_noise.png` (stages of one drawing) and
`guidance.png` (the same at several guidance scales) to outputs/pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.bundled_quality import grid
from core.errors import exit_with_sentence
from sampling.generator import DEFAULT_MODEL, Generator
from sampling.request import Request

PROMPTS = (
    "a drawing of a red creature with blue wings",
    "a drawing of a round green creature with a leaf tail",
    "a drawing of a tall orange creature with a flame tail",
    "a drawing of a pink creature with turquoise wings",
    "a blue fox on a yellow background",
    "a house with a red roof",
    "a burger",
    "three stars",
)
GUIDANCE_SCALES = (1, 2, 3, 5, 8, 12, 20, 30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--base", default="bundled/base-model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("outputs/pictures"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    requests = [Request(prompt, seed=options.seed + i) for i, prompt in enumerate(PROMPTS)]
    base, tuned = (
        [picture.image for picture in Generator.load(model).pictures(requests)]
        for model in (options.base, options.model)
    )
    generator = Generator.load(options.model)
    stages = [each.image for each in generator.stages(Request(PROMPTS[0], seed=1), 8)]
    grid(stages, len(stages)).save(options.output / "from_noise.png")
    scales = [Request(PROMPTS[0], seed=1, guidance_scale=scale) for scale in GUIDANCE_SCALES]
    guided = [picture.image for picture in generator.pictures(scales)]
    grid(guided, len(guided)).save(options.output / "guidance.png")
    grid(tuned, len(PROMPTS)).save(options.output / "strip.png")
    grid(base + tuned, len(PROMPTS)).save(options.output / "before_after.png")
    print(f"Pictures are in {options.output}.")


if __name__ == "__main__":
    exit_with_sentence(main)
