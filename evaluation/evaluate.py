"""Evaluation: every model draws the same prompts with the same seeds, and its pictures are scored;
or pictures that exist already are."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

from core.errors import UserError
from core.formatting import amount
from core.model_captions import captions_of
from core.terminal import complain
from evaluation import defaults
from evaluation.clip_score import VIT_B_16, Scorer
from evaluation.compared_models import ComparedModel, compared_models
from evaluation.comparison import AgainstBase, against, require_same_making
from evaluation.distributed import Processes
from evaluation.evaluation_job import EvaluationJob
from evaluation.image_scorer import ImageScorer
from evaluation.judges import DINO
from evaluation.judges import options as judge_options
from evaluation.options import OF_ALL
from evaluation.prompts import (
    RECALLED_PROMPTS,
    PromptSet,
    drawable,
    read_prompts,
    shortened,
)
from evaluation.reference_images import CaptionedImage, ReferenceImages, read_pictures, reference
from evaluation.results import Result, best_of, result
from evaluation.scores import ModelScores, PromptScore
from sampling.generator import Generator
from sampling.pipeline import checked_device
from sampling.request import Request


@dataclass(frozen=True)
class Evaluation:
    """Everything that is reported."""

    results: list[Result]  # the base first, if there is one; the model last
    comparisons: list[AgainstBase]
    reference: ReferenceImages | None

    @cached_property
    def best(self) -> Result | None:
        return best_of(self.results)


@dataclass(frozen=True)
class Prompts:
    """The prompts of each question."""

    following: PromptSet
    keeping: PromptSet | None = None  # what the base knew
    recalling: PromptSet | None = None  # training captions, where copies are likeliest

    def at_most(self, limit: int | None) -> Prompts:
        """At most so many of each question."""
        keeping, recalling = (
            each and shortened(each, limit) for each in (self.keeping, self.recalling)
        )
        return Prompts(shortened(self.following, limit), keeping, recalling)

    @property
    def scored(self) -> list[str]:
        """All prompts by which pictures are scored."""
        return [*self.following.prompts, *(self.keeping.prompts if self.keeping else ())]


def evaluate_models(
    options: argparse.Namespace, request: Request, processes: Processes
) -> Evaluation:
    """Have every model draw the same prompts with the same seeds, and compare them."""
    given = _given_prompts(options)
    device = processes.device(options.device)
    models = compared_models(
        options.model,
        partial(Generator.load, device=device, dtype=options.dtype, backend=options.backend),
        base=options.base, checkpoints=options.checkpoints, lora_scales=options.lora_scale,
    )  # fmt: skip
    model = models[-1].load()
    training, held_out = defaults.training_pictures(options, model.run)
    prompts = _prompts(options, given, models, training, held_out)
    name = options.scorer or defaults.scorer(prompts.following, model)
    scorer, is_subject = Scorer.load(name, device=model.device), defaults.has_subject(model.run)
    image_scorer = image_scorer_of(options, scorer, is_subject)
    job = EvaluationJob(
        defaults.with_colours(image_scorer, prompts.following), request, processes,
        options.images_per_prompt, options.batch_size,
        Path(options.save_images) if options.save_images else None, options.progress,
        all(getattr(options, name) is None for name in OF_ALL),
    )  # fmt: skip
    prompts = prompts.at_most(options.max_prompts)
    check_comparable(job, models, prompts.following)
    warn_of_truncation(scorer, prompts.scored)
    encoded = reference_of(training, image_scorer, is_subject)
    results = [_result(job, each, prompts, encoded) for each in models]
    base = results[0] if models[0].role == "base" else None
    return Evaluation(results, _comparisons(results, base, encoded), encoded)


def _given_prompts(options: argparse.Namespace) -> list[PromptSet | None]:
    """--prompts and --keep_prompts, which can be refused before a model is opened."""
    return [
        drawable(read_prompts(name)) if name not in (None, "none") else None
        for name in (options.prompts, options.keep_prompts)
    ]


def _prompts(
    options: argparse.Namespace,
    given: Sequence[PromptSet | None],
    models: Sequence[ComparedModel],
    training: defaults.NamedPictures | None,
    held_out: Sequence[CaptionedImage],
) -> Prompts:
    following, keeping = given
    model = models[-1].load()
    if following is None:
        pictures = training.pictures if training else []
        following = defaults.prompts(model, held_out, pictures, captions_of(options.model[-1]))
    if len(models) > 1 and options.keep_prompts is None:
        keeping = defaults.keep_prompts(model)
    return Prompts(following, keeping, defaults.recalled_captions(training, following))


def _result(
    job: EvaluationJob, compared: ComparedModel, prompts: Prompts, encoded: ReferenceImages | None
) -> Result:
    generator, recalling, keeping = compared.load(), None, None
    following = job.scores(generator, compared.role, prompts.following)
    if prompts.keeping:  # no judge's metric reads these
        plain = replace(job, image_scorer=replace(job.image_scorer, judges={}))
        keeping = plain.scores(generator, compared.role, prompts.keeping)
    if prompts.recalling and compared.role != "base":
        captions = prompts.recalling
        several = replace(job, images_per_prompt=RECALLED_PROMPTS // len(captions.prompts))
        recalling = several.scores(generator, f"{compared.role}/training-captions", captions)
    return result(following, keeping, encoded, compared.step, recalling)


def _comparisons(
    results: Sequence[Result], base: Result | None, encoded: ReferenceImages | None
) -> list[AgainstBase]:
    models = [each for each in results if each is not base] if base else []
    return [against(each, base, encoded, len(models)) for each in models if base]


def check_comparable(
    job: EvaluationJob, models: Sequence[ComparedModel], prompts: PromptSet
) -> None:
    """Raise UserError for models whose scores will not compare, before hours of drawing."""
    model = models[-1].load()
    for each in models:
        if each.opened:
            require_same_making(job.identity(model, prompts), job.identity(each.load(), prompts))


def evaluate_pictures(
    options: argparse.Namespace, request: Request, processes: Processes
) -> Evaluation:
    """Score captioned pictures that exist already; with --base, paired with those by caption."""
    base_name = None if options.base in (None, "none") else options.base
    names = [*([base_name] if base_name else []), *options.pictures]
    sets = {name: list(chain(*read_pictures(name))) for name in names}
    if base_name:
        for name in options.pictures:
            require_same_captions(name, sets[name], base_name, sets[base_name])
    scorer = Scorer.load(options.scorer or VIT_B_16, device=checked_device(options.device))
    training, _ = defaults.training_pictures(options, {})
    image_scorer = image_scorer_of(options, scorer)
    encoded = reference_of(training, image_scorer)
    results = [
        result(scores_of(Path(name).resolve().name, sets[name], image_scorer), None, encoded)
        for name in names
    ]
    base = results[0] if base_name else None
    return Evaluation(results, _comparisons(results, base, encoded), encoded)


def scores_of(
    name: str, pictures: Iterable[CaptionedImage], image_scorer: ImageScorer
) -> ModelScores:
    """Scores by caption, in alphabetical order; several pictures may share a caption."""
    by_caption: dict[str, list[Callable]] = {}
    for picture in sorted(pictures, key=lambda each: each.caption):
        by_caption.setdefault(picture.caption, []).append(picture.image)
    prompts = PromptSet("captions of pictures", tuple(by_caption))
    counts = sorted({len(images) for images in by_caption.values()})
    per_prompt = counts[0] if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    made = image_scorer.identity | prompts.identity | {"images_per_prompt": per_prompt}
    scored = tuple(
        PromptScore(caption, tuple(image_scorer.score(image(), caption) for image in images))
        for caption, images in by_caption.items()
    )
    return ModelScores(name, None, made, scored)


def require_same_captions(
    name: str, pictures: Sequence[CaptionedImage], base: str, others: Sequence[CaptionedImage]
) -> None:
    """Raise a UserError that names a caption which two folders do not have equally often."""
    ours, theirs = (Counter(each.caption for each in several) for several in (pictures, others))
    for caption in sorted(ours.keys() | theirs.keys()):
        if ours[caption] != theirs[caption]:
            raise UserError(
                f"These cannot be compared: {name} has {amount(ours[caption], 'picture')} of "
                f"'{caption:.60}' and {base} {theirs[caption]}. Make them the same."
            )


def image_scorer_of(
    options: argparse.Namespace, scorer: Scorer, is_subject: bool = False
) -> ImageScorer:
    """The scorer and the chosen judges."""
    paths: Mapping[str, str] = judge_options.chosen(options.judge, options.inception)
    if DINO in paths and not is_subject:
        paths = {name: path for name, path in paths.items() if name != DINO}
        complain(
            "warning: --judge dino tells how like pictures are to a subject, and no run.json here "
            "names an --instance_prompt that a model was taught one by; it is not asked."
        )
    return ImageScorer(scorer, judge_options.load(paths, scorer.device))


def reference_of(
    training: defaults.NamedPictures | None, image_scorer: ImageScorer, is_subject: bool = False
) -> ReferenceImages | None:
    """The training pictures, encoded; None if they are not available."""
    if training is None:
        return None
    return reference(
        training.name, training.pictures, image_scorer.scorer, image_scorer.judges, is_subject
    )


def warn_of_truncation(scorer: Scorer, prompts: Sequence[str]) -> None:
    """Warn of prompts that are longer than the scorer's context."""
    cut = sum(map(scorer.truncates, prompts))
    if cut:
        length = scorer.tokenizer.context_length
        complain(
            f"warning: {cut} of {len(prompts)} prompts are longer than the {length} tokens "
            "that the scorer reads; their ends do not count."
        )
