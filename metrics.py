"""Did it get better? Models + prompts -> scores, a verdict and a report.

    python metrics.py
    python metrics.py --model my-model --base bundled/base-model --report my-model/scores.html

Three questions: does the model follow prompts of what it was tuned for, does it keep what its base
knew, has it the style of its training pictures; and did it memorise them? Every picture's seed is a
function of its place, so the same command gives the same scores, and models are compared on the
same noise.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from core.errors import UserError, exit_with_sentence
from core.formatting import amount
from core.model_captions import Captions, captions_of
from core.optional_modules import module_if_here
from core.paths import is_folder
from core.terminal import complain, say
from evaluation import judge_options, reference_images, results
from evaluation.clip_score import BUNDLED, VIT_B_16, Scorer, check_name
from evaluation.compared_models import contenders_of
from evaluation.distributed import Processes
from evaluation.evaluate import SEED_STRIDE, EvaluationJob
from evaluation.html_report import write_page_of
from evaluation.outputs import check_destinations, write_json
from evaluation.prompts import (
    HELD_OUT_PROMPTS,
    RECALLED_PROMPTS,
    SETS,
    TRAINING_CAPTIONS,
    PromptSet,
    drawable,
    read_prompts,
    some_captions,
)
from evaluation.reference_images import CaptionedImage
from evaluation.report import (
    against_as_json,
    as_json,
    comparison_table,
    results_table,
    score_table,
    summary,
)
from evaluation.scores import (
    AgainstBase,
    ModelScores,
    PromptScore,
    Result,
    best_of,
    require_same_making,
)
from evaluation.verdict import sentences
from sampling.generator import DEFAULT_MODEL, Generator
from sampling.pipeline import SMALL_UNET_PARAMETERS, checked_device, read_run
from sampling.request import Request


@dataclass(frozen=True)
class Measured:
    """Everything that is reported: the base first, where there is one; the model last."""

    results: list[Result]
    against: list[AgainstBase]
    reference: reference_images.ReferenceImages | None


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_options(arguments)
    check_destinations(options, usual=parse_options([]))
    check_judges(options)
    processes = Processes()
    measured = (score_pictures if options.pictures else draw_and_score)(options, processes)
    if processes.is_main:
        tell(options, measured)


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="metrics.py",
        description="Did it get better? Score a model, and compare it with its base.",
    )
    add = parser.add_argument
    several = {"nargs": "+", "metavar": "MODEL"}
    add(
        "--model",
        default=[DEFAULT_MODEL],
        help="folders, files or hub ids (bundled model)",
        **several,
    )
    add("--base", help="what to compare with; 'none' (the base that the model's run.json names)")
    add("--checkpoints", action="store_true", help="also score best/ and every checkpoint-*/")
    add("--lora_scale", type=float, nargs="+", help="strengths at which to try a LoRA, such as 0.5")
    add("--pictures", nargs="+", metavar="DIR", help="score these captioned pictures, draw nothing")
    add("--prompts", help=f"{', '.join(SETS)}, a .txt or a .jsonl file (what suits the model)")
    add("--keep_prompts", help="likewise, what the base knew; 'none' (what suits the model)")
    add("--data", help="the training pictures (where run.json says); 'none'")
    add("--scorer", help=f"local-dir:FOLDER or e.g. {VIT_B_16} (what suits the prompts)")
    add("--inception", metavar="FILE", help="torchvision's inception_v3 as safetensors, for FID")
    add(
        "--judge",
        nargs="+",
        action="extend",
        metavar="NAME=PATH",
        help=f"ask {', '.join(judge_options.NAMES)} by weights that you have (docs/judges.md)",
    )
    add("--images_per_prompt", type=int, help=f"1..{SEED_STRIDE} (4; for 32 prompts and more, 1)")
    add("--seed", type=int, default=0, help="of the first picture (%(default)s)")
    add("--steps", type=int, default=Request.steps, help="denoising steps (%(default)s)")
    add("--guidance_scale", type=float, default=Request.guidance_scale, help="(%(default)s)")
    add("--batch_size", type=int, default=8, help="pictures drawn at once (%(default)s)")
    add("--device", help="cpu, cuda, cuda:1 or mps (the best there is)")
    add("--dtype", help="fp32, fp16 or bf16 (what suits the device and the model)")
    add("--report", metavar="FILE.html", help="write a page with the pictures side by side")
    add("--output", metavar="FILE", help="write every score to this JSON file")
    add("--save_images", metavar="DIR", help="keep the pictures in this folder")
    add("--write_run", action="store_true", help="add the scores to the model folder's run.json")
    return parser.parse_args(arguments)


def check_judges(options: argparse.Namespace) -> None:
    """Raise UserError for what is to look at the pictures and is not there, before models open."""
    if options.scorer:
        check_name(options.scorer)
    judge_options.check(judge_options.chosen(options.judge, options.inception))


def draw_and_score(options: argparse.Namespace, processes: Processes) -> Measured:
    """Draw the same prompts with the same seeds by every model, and look at the pictures."""
    request = common_request(options)
    given = [
        drawable(read_prompts(name)) if name not in (None, "none") else None
        for name in (options.prompts, options.keep_prompts)
    ]
    device = processes.device(options.device)
    contenders = contenders_of(
        options.model, partial(Generator.load, device=device, dtype=options.dtype),
        base=options.base, checkpoints=options.checkpoints, lora_scales=options.lora_scale,
    )  # fmt: skip
    model = contenders[-1].load()
    training, held_out = pictures_of(options, model.run)
    learned = training[1] if training else []
    prompts = given[0] or default_prompts(model, held_out, learned, captions_of(options.model[-1]))
    sets = [prompts, *([given[1]] if given[1] else [])]
    if len(contenders) > 1 and options.keep_prompts is None:
        sets.append(read_prompts("things" if is_small(model) else "general"))
    scorer = Scorer.load(options.scorer or default_scorer(prompts, model), device=model.device)
    folder = Path(options.save_images) if options.save_images else None
    eyes = eyes_of(options, scorer, prompts, taught_subject(model.run))
    images = options.images_per_prompt
    job = EvaluationJob(eyes, request, processes, images, options.batch_size, folder)
    plain = replace(job, eyes=replace(eyes, judges={}))  # what was kept, the scorer tells alone
    # Before an hour goes into drawing.
    for each in contenders:
        if each.opened:
            require_same_making(job.identity(model, prompts), job.identity(each.load(), prompts))
    warn_of_truncation(scorer, [text for one in sets for text in one.prompts])
    reference = reference_of(training, eyes, taught_subject(model.run))
    captions = recalled(training) if prompts.name != TRAINING_CAPTIONS else None
    found = []
    for each in contenders:
        generator = each.load()
        following = job.scores(generator, each.role, prompts)
        keeping = plain.scores(generator, each.role, sets[1]) if len(sets) > 1 else None
        recalling = None
        if captions and each.role != "base":
            several = replace(job, images_per_prompt=RECALLED_PROMPTS // len(captions.prompts))
            recalling = several.scores(generator, f"{each.role}/training-captions", captions)
        found.append(results.result(following, keeping, reference, each.step, recalling))
    against = found[1:] if contenders[0].role == "base" else []
    several = [results.against(e, found[0], reference, len(against)) for e in against]
    return Measured(found, several, reference)


def score_pictures(options: argparse.Namespace, _: Processes) -> Measured:
    """Look at captioned pictures that are there; with --base, paired with those by caption."""
    base = [] if options.base in (None, "none") else [options.base]
    sets = [
        (name, list(chain(*reference_images.read_pictures(name))))
        for name in [*base, *options.pictures]
    ]
    for name, pictures in sets[1:] if base else ():
        require_same_captions(name, pictures, *sets[0])
    scorer = Scorer.load(options.scorer or VIT_B_16, device=checked_device(options.device))
    training, _ = pictures_of(options, {})
    eyes = eyes_of(options, scorer)
    reference = reference_of(training, eyes)
    found = [
        results.result(scores_of(Path(name).resolve().name, pictures, eyes), None, reference)
        for name, pictures in sets
    ]
    others = found[1:] if base else []
    against = [results.against(each, found[0], reference, len(others)) for each in others]
    return Measured(found, against, reference)


def scores_of(
    name: str, pictures: Iterable[CaptionedImage], eyes: results.ImageScorer
) -> ModelScores:
    """Scores by caption, in alphabetical order; several pictures may share one."""
    by_caption = {}
    for picture in sorted(pictures, key=lambda each: each.caption):
        by_caption.setdefault(picture.caption, []).append(picture.image)
    prompts = PromptSet("captions of pictures", tuple(by_caption))
    counts = sorted({len(images) for images in by_caption.values()})
    per_prompt = counts[0] if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    made = eyes.identity | prompts.identity | {"images_per_prompt": per_prompt}
    scored = tuple(
        PromptScore(caption, tuple(eyes.look(image(), caption) for image in images))
        for caption, images in by_caption.items()
    )
    return ModelScores(name, None, made, scored)


def pictures_of(
    options: argparse.Namespace, run: dict
) -> tuple[tuple[str, list[CaptionedImage]] | None, list[CaptionedImage]]:
    """The training pictures, with a name for them, where they can be had; and those of the same
    data that were held out."""
    trained = run.get("options", {})
    if options.data == "none":
        return None, []
    if options.data:
        training, held_out = reference_images.read_pictures(options.data)
        return (options.data, training), held_out
    if is_bundled(options.model[0]) and not options.pictures:
        return drawn_again(run), []
    for name, prompt in (("train_data_dir", None), ("instance_data_dir", "instance_prompt")):
        place = trained.get(name)
        if isinstance(place, str) and place and is_folder(place):
            share = trained.get("held_out")
            share = share if isinstance(share, float) and 0 <= share < 1 else 0.0
            words = trained.get(prompt)
            training, held_out = reference_images.read_pictures(
                place, held_out=share, prompt=words if isinstance(words, str) else None
            )
            learned = run.get("dataset", {}).get("pictures")
            if learned != len(training):
                complain(
                    f"warning: {place} now has {len(training)} training pictures, and the model "
                    f"learned from {learned}: style, distances and copies are of those of now."
                )
            return (place, training), held_out
    return None, []


def recalled(
    training: tuple[str, list[CaptionedImage]] | None,
) -> PromptSet | None:
    """Some captions of the training pictures: there a model that has learned them by heart shows
    it first. None where there are no two pictures to seek copies of."""
    if training is None or len(training[1]) < 2:
        return None
    captions = (picture.caption for picture in training[1])
    return some_captions(TRAINING_CAPTIONS, captions, RECALLED_PROMPTS)


def drawn_again(run: dict) -> tuple[str, list[CaptionedImage]] | None:
    """The pictures of the bundled model's training, which are a function of their numbers."""
    if not (creatures := module_if_here("bundled.creatures")):
        return None
    count = run.get("dataset", {}).get("pictures")
    drawings = [
        creatures.draw("pokemon", number)
        for number in range(count if isinstance(count, int) else 0)
    ]
    pictures = [
        CaptionedImage(f"{i:06}.png", drawing.captions[0], partial(getattr, drawing, "image"))
        for i, drawing in enumerate(drawings)
    ]
    return ("the bundled creatures", pictures) if pictures else None


def common_request(options: argparse.Namespace) -> Request:
    """What all requests have in common, refused before a model is loaded if out of bounds."""
    images = options.images_per_prompt
    if images is not None and not 1 <= images <= SEED_STRIDE:
        raise UserError(f"--images_per_prompt is {images}. Give 1 to {SEED_STRIDE}.")
    if options.batch_size < 1:
        raise UserError(f"--batch_size is {options.batch_size}. Give 1 or more.")
    return Request(
        prompt="each in its turn",
        seed=options.seed,
        steps=options.steps,
        guidance_scale=options.guidance_scale,
        prompt_weights=False,
    )


def require_same_captions(name: str, pictures, base: str, others) -> None:
    """Raise a UserError that names a caption which two folders do not have equally often."""
    ours, theirs = (Counter(each.caption for each in several) for several in (pictures, others))
    for caption in sorted(ours.keys() | theirs.keys()):
        if ours[caption] != theirs[caption]:
            raise UserError(
                f"These cannot be compared: {name} has {amount(ours[caption], 'picture')} of "
                f"'{caption:.60}' and {base} {theirs[caption]}. Make them the same."
            )


def is_bundled(model: str) -> bool:
    return Path(model).resolve() == Path(DEFAULT_MODEL)


def default_prompts(
    generator: Generator,
    held_out: list[CaptionedImage],
    training: list[CaptionedImage],
    known: Captions | None,
) -> PromptSet:
    """Captions of what the model was tuned for: those that it has never seen, where there are
    some, else those that it has; where the pictures are gone, those that its folder names."""
    if generator.run and generator.run == read_run(DEFAULT_MODEL) and not held_out:
        return read_prompts("held-out")
    known = known or Captions()
    sets = (
        ("held-out captions", [each.caption for each in held_out] or known.held_out),
        (TRAINING_CAPTIONS, [each.caption for each in training] or known.training),
    )
    for name, captions in sets:
        if found := some_captions(name, captions, HELD_OUT_PROMPTS):
            return found
    return read_prompts("creatures" if is_small(generator) else "original")


def default_scorer(prompts: PromptSet, generator: Generator) -> str:
    """The bundled scorer has seen creatures only; others are for the scorer of the literature."""
    bundled = {"creatures": True, "held-out": True, "original": False}
    return BUNDLED if bundled.get(prompts.name, is_small(generator)) else VIT_B_16


def eyes_of(
    options: argparse.Namespace,
    scorer: Scorer,
    prompts: PromptSet | None = None,
    is_subject: bool = False,
) -> results.ImageScorer:
    """What looks at the pictures; for the bundled captions, also at the pixels of the body."""
    paths = judge_options.chosen(options.judge, options.inception)
    if judge_options.DINO in paths and not is_subject:
        del paths[judge_options.DINO]
        complain(
            "warning: --judge dino tells how like pictures are to a subject, and no run.json here "
            "names an --instance_prompt that a model was taught one by; it is not asked."
        )
    eyes = results.ImageScorer(scorer, judge_options.load(paths, scorer.device))
    if prompts is None or prompts.name not in ("creatures", "held-out"):
        return eyes
    pixels = module_if_here("bundled.pixels")
    return replace(eyes, colour=pixels.body_colour) if pixels else eyes


def reference_of(
    training: tuple[str, list[CaptionedImage]] | None,
    eyes: results.ImageScorer,
    is_subject: bool = False,
) -> reference_images.ReferenceImages | None:
    """The training pictures as they are seen, where they can be had."""
    if training is None:
        return None
    return reference_images.reference(*training, eyes.scorer, eyes.judges, is_subject)


def taught_subject(run: dict) -> bool:
    """Whether a model was taught one thing, by a prompt for all its pictures (DreamBooth)."""
    prompt = run.get("options", {}).get("instance_prompt")
    return isinstance(prompt, str) and bool(prompt)


def is_small(generator: Generator) -> bool:
    """Whether the model is of the bundled kind, which draws nothing but creatures."""
    return generator.pipe.unet.num_parameters() < SMALL_UNET_PARAMETERS


def warn_of_truncation(scorer: Scorer, prompts: Sequence[str]) -> None:
    cut = sum(map(scorer.truncates, prompts))
    if cut:
        length = scorer.tokenizer.context_length
        complain(
            f"warning: {cut} of {len(prompts)} prompts are longer than the {length} tokens "
            "that the scorer reads; their ends do not count."
        )


def tell(options: argparse.Namespace, measured: Measured) -> None:
    """Print tables and verdict; write --output, --report and, with --write_run, run.json."""
    found, against = measured.results, measured.against
    model, best = found[-1], best_of(found)
    last = against[-1] if against else None
    if last:
        say(comparison_table(model.following, last.base.following, last.following), end="\n\n")
    else:
        say(score_table(model.following), end="\n\n")
    say(results_table(found), end="\n\n")
    told = sentences(found, against, best)
    if measured.reference is None and options.data != "none":
        told.append(
            "Without its training pictures nothing is known of style, distances and memorisation; "
            "--data FOLDER names them."
        )
    say("\n".join(told))
    if options.output:
        content = {
            "models": [as_json(result) for result in found],
            "comparisons": [
                {"model": each.model.model} | against_as_json(each) for each in against
            ],
            "best": best.model if best else None,
            "verdict": told,
        }
        write_json(Path(options.output), content)
    if options.report:
        write_page_of(Path(options.report), found, against, measured.reference, told, best)
    if options.write_run:
        run = read_run(options.model[0])
        mine = summary(model, last) | {"verdict": told}
        kept = run.get("scores", {}) | {model.following.identity["prompts"]: mine}
        write_json(Path(options.model[0]) / "run.json", run | {"scores": kept})


if __name__ == "__main__":
    exit_with_sentence(main)
