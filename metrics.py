"""Score a model, or one against another: models + prompts -> CLIP scores and a verdict.

    python metrics.py
    python metrics.py --base bundled/base-model --prompts held-out

Every picture's seed is a function of its place, so the same command gives the same scores, and two
models are compared on the same noise.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from errors import UserError, exit_with_sentence
from generate import DEFAULT_MODEL, Generator, Picture, Request
from scoring.prompts import SETS, PromptSet, read_prompts
from scoring.report import (
    as_json,
    comparison_as_json,
    comparison_table,
    score_table,
    summary,
)
from scoring.scorer import BUNDLED, VIT_B_16, Scorer
from scoring.scores import Comparison, ModelScores, PromptScore, compare, require_same_making
from serving.pipeline import SMALL_UNET_PARAMETERS, read_run

if TYPE_CHECKING:
    from PIL import Image

SEED_STRIDE = 16  # most pictures per prompt; asking for more keeps the seeds of the first ones


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_options(arguments)
    check_destinations(options)
    request = common_request(options)
    prompts = read_prompts(options.prompts) if options.prompts else None
    generators = load_models(options)
    prompts = prompts or read_prompts(default_prompts(generators[0]))
    scorer = Scorer.load(
        options.scorer or default_scorer(prompts, generators[0]), device=generators[0].device
    )
    identities = [identity(generator, scorer, prompts, options) for generator in generators]
    require_same_making(identities[0], identities[-1])
    warn_of_truncation(scorer, prompts)
    scores = [
        score_model(generator, made, requests_for(prompts, request), scorer, options, role)
        for generator, made, role in zip(generators, identities, ("model", "base"), strict=False)
    ]
    comparison = compare(*scores) if options.base else None
    print(comparison_table(*scores, comparison) if comparison else score_table(scores[0]))
    write_results(options, scores, comparison)


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="metrics.py", description="Score a model by CLIPScore, or compare it with a base."
    )
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="folder or hub id (the bundled sd-pokemon-model)")
    add("--base", help="folder or hub id of a model to compare with, at the same prompts and seeds")
    add("--prompts", help=f"{', '.join(SETS)}, a .txt or a .jsonl file (what suits the model)")
    add("--scorer", help=f"local-dir:FOLDER or e.g. {VIT_B_16} (what suits the prompts)")
    add("--images_per_prompt", type=int, default=4, help=f"1..{SEED_STRIDE} (%(default)s)")
    add("--seed", type=int, default=0, help="of the first picture (%(default)s)")
    add("--steps", type=int, default=Request.steps, help="denoising steps (%(default)s)")
    add("--guidance_scale", type=float, default=Request.guidance_scale, help="(%(default)s)")
    add("--batch_size", type=int, default=8, help="pictures drawn at once (%(default)s)")
    add("--device", help="cpu, cuda, cuda:1 or mps (the best there is)")
    add("--dtype", help="fp32, fp16 or bf16 (what suits the device and the model)")
    add("--output", metavar="FILE", help="write every score to this JSON file")
    add("--save_images", metavar="DIR", help="keep the pictures in this folder")
    add("--write_run", action="store_true", help="add the scores to the model folder's run.json")
    return parser.parse_args(arguments)


def common_request(options: argparse.Namespace) -> Request:
    """What all requests have in common, refused before a model is loaded if out of bounds."""
    if not 1 <= options.images_per_prompt <= SEED_STRIDE:
        raise UserError(
            f"--images_per_prompt is {options.images_per_prompt}. Give 1 to {SEED_STRIDE}."
        )
    if options.batch_size < 1:
        raise UserError(f"--batch_size is {options.batch_size}. Give 1 or more.")
    return Request(
        prompt="each in its turn",
        seed=options.seed,
        num_images=options.images_per_prompt,
        steps=options.steps,
        guidance_scale=options.guidance_scale,
    )


def requests_for(prompts: PromptSet, common: Request) -> list[Request]:
    """One request a prompt; its seeds follow from its place alone."""
    return [
        replace(common, prompt=prompt, seed=common.seed + place * SEED_STRIDE)
        for place, prompt in enumerate(prompts.prompts)
    ]


def check_destinations(options: argparse.Namespace) -> None:
    """Raise a UserError for what could not be written after the pictures are drawn."""
    if options.write_run and not Path(options.model).is_dir():
        raise UserError(f"--write_run needs a model folder; '{options.model}' is none.")
    if options.output:
        make_writable(Path(options.output).parent)
        if Path(options.output).is_dir():
            raise UserError(f"--output {options.output} is a folder. Give a file name.")
    if options.save_images:
        make_writable(Path(options.save_images))


def make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot make folder {folder}: {error.strerror}.") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"Cannot write to folder {folder}: no permission.")


def load_models(options: argparse.Namespace) -> list[Generator]:
    """The model and, if there is one, its base: both now, before an hour goes into the first."""
    names = [options.model, *([options.base] if options.base else [])]
    return [Generator.load(name, device=options.device, dtype=options.dtype) for name in names]


def default_prompts(generator: Generator) -> str:
    return "creatures" if is_small(generator) else "original"


def default_scorer(prompts: PromptSet, generator: Generator) -> str:
    """The bundled scorer has seen creatures only; others are for the scorer of the literature."""
    bundled = {"creatures": True, "held-out": True, "original": False}
    return BUNDLED if bundled.get(prompts.name, is_small(generator)) else VIT_B_16


def is_small(generator: Generator) -> bool:
    """Whether the model is of the bundled kind, which draws nothing but creatures."""
    return generator.pipe.unet.num_parameters() < SMALL_UNET_PARAMETERS


def identity(
    generator: Generator, scorer: Scorer, prompts: PromptSet, options: argparse.Namespace
) -> dict:
    """All that decides a score, except the model: what must be equal to compare two."""
    drawing = {k: v for k, v in generator.settings.items() if k not in ("model", "run_id")}
    libraries = {name: version(name) for name in ("open_clip_torch", "torchmetrics")}
    return {
        **drawing,
        "versions": drawing["versions"] | libraries,
        "scorer": scorer.name,
        "scorer_sha256": scorer.sha256,
        "prompts": prompts.name,
        "prompts_sha256": prompts.sha256,
        "images_per_prompt": options.images_per_prompt,
        "seed": options.seed,
        "seed_stride": SEED_STRIDE,
        "steps": options.steps,
        "guidance_scale": options.guidance_scale,
        "width": generator.size,
        "height": generator.size,
    }


def warn_of_truncation(scorer: Scorer, prompts: PromptSet) -> None:
    cut = sum(map(scorer.truncates, prompts.prompts))
    if cut:
        length = scorer.tokenizer.context_length
        print(
            f"warning: {cut} of {len(prompts.prompts)} prompts are longer than the {length} tokens "
            "that the scorer reads; their ends do not count.",
            file=sys.stderr,
        )


def score_model(
    generator: Generator,
    made: dict,
    requests: Sequence[Request],
    scorer: Scorer,
    options: argparse.Namespace,
    role: str,
) -> ModelScores:
    """Draw all requests and score every picture as it comes; none is kept in memory."""
    from tqdm import tqdm

    folder = Path(options.save_images, role) if options.save_images else None
    with tqdm(desc=f"drawing with {generator.name}", unit="step", leave=False, disable=None) as bar:

        def show_step(done: int, total: int) -> bool:
            bar.total = total
            bar.update(done - bar.n)
            return False

        pictures = generator.pictures(requests, show_step, options.batch_size)
        prompts = tuple(
            score_prompt(request.prompt, islice(pictures, request.num_images), scorer, folder)
            for request in requests
        )
    return ModelScores(generator.name, generator.run.get("run_id"), made, prompts)


def score_prompt(
    prompt: str, pictures: Iterable[Picture], scorer: Scorer, folder: Path | None
) -> PromptScore:
    """Score the pictures of one prompt, and save them if there is a folder."""
    seeds, scores, problems = [], [], []
    for picture in pictures:
        problem = picture.problem or ("black" if is_black(picture.image) else None)
        seeds.append(picture.seed)
        problems.append(problem)
        scores.append(None if problem else scorer.score(picture.image, prompt))
        if folder:
            folder.mkdir(exist_ok=True)
            picture.save(folder / picture.file_name)
    return PromptScore(prompt, tuple(seeds), tuple(scores), tuple(problems))


def is_black(image: "Image.Image") -> bool:
    """Safety checkers elsewhere blacken a picture without a word; it shows nothing to score."""
    return image.getbbox() is None


def write_results(
    options: argparse.Namespace,
    scores: Sequence[ModelScores],
    comparison: Comparison | None,
) -> None:
    """Write --output and, where --write_run asks for it, the model's run.json."""
    against = {"comparison": comparison_as_json(comparison, scores[1])} if comparison else {}
    if options.output:
        models = dict(zip(("model", "base"), map(as_json, scores), strict=False))
        write_json(Path(options.output), models | against)
    if options.write_run:
        run = read_run(options.model)
        kept = run.get("scores", {}) | {scores[0].identity["prompts"]: summary(scores[0]) | against}
        write_json(Path(options.model) / "run.json", run | {"scores": kept})


def write_json(path: Path, content: dict) -> None:
    """Whole or not at all: run.json must survive an interruption."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)


if __name__ == "__main__":
    exit_with_sentence(main)
