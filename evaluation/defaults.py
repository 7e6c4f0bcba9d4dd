"""What an evaluation takes where options leave it open: prompts, training pictures, scorer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from core.model_captions import Captions
from core.optional_modules import module_if_here
from core.paths import is_folder
from core.terminal import complain
from evaluation.clip_score import BUNDLED, VIT_B_16
from evaluation.prompts import (
    HELD_OUT_PROMPTS,
    RECALLED_PROMPTS,
    TRAINING_CAPTIONS,
    PromptSet,
    read_prompts,
    some_captions,
)
from evaluation.reference_images import CaptionedImage, read_pictures
from sampling.generator import DEFAULT_MODEL, Generator
from sampling.pipeline import SMALL_UNET_PARAMETERS, read_run

if TYPE_CHECKING:
    from evaluation.image_scorer import ImageScorer


@dataclass(frozen=True)
class NamedPictures:
    """Training pictures, and where they come from."""

    name: str
    pictures: list[CaptionedImage]


def training_pictures(
    options: argparse.Namespace, run: dict
) -> tuple[NamedPictures | None, list[CaptionedImage]]:
    """The training pictures if they are available, and the held-out ones of the same data."""
    if options.data == "none":
        return None, []
    if options.data:
        training, held_out = read_pictures(options.data)
        return NamedPictures(options.data, training), held_out
    if is_bundled(options.model[0]) and not options.pictures:
        return _bundled_drawings(run), []
    trained = run.get("options", {})
    for name, prompt in (("train_data_dir", None), ("instance_data_dir", "instance_prompt")):
        place = trained.get(name)
        if isinstance(place, str) and place and is_folder(place):
            return _of_run(run, place, trained.get(prompt))
    return None, []


def _of_run(
    run: dict, place: str, prompt: object
) -> tuple[NamedPictures | None, list[CaptionedImage]]:
    """The pictures in the folder from which a training run took its data."""
    share = run["options"].get("held_out")
    training, held_out = read_pictures(
        place,
        held_out=share if isinstance(share, float) and 0 <= share < 1 else 0.0,
        prompt=prompt if isinstance(prompt, str) else None,
    )
    learned = run.get("dataset", {}).get("pictures")
    if learned != len(training):
        complain(
            f"warning: {place} now has {len(training)} training pictures, and the model "
            f"learned from {learned}: style, distances and copies are of those of now."
        )
    return NamedPictures(place, training), held_out


def _bundled_drawings(run: dict) -> NamedPictures | None:
    """The training pictures of the bundled model, which are functions of their numbers."""
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
    return NamedPictures("the bundled creatures", pictures) if pictures else None


def prompts(
    generator: Generator,
    held_out: Sequence[CaptionedImage],
    training: Sequence[CaptionedImage],
    known: Captions | None,
) -> PromptSet:
    """Captions of what the model was tuned for: held-out ones if there are any, else those of
    training; without pictures, the captions that its folder names."""
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


def keep_prompts(generator: Generator) -> PromptSet:
    """Prompts of what the base knew."""
    return read_prompts("things" if is_small(generator) else "general")


def recalled_captions(training: NamedPictures | None, following: PromptSet) -> PromptSet | None:
    """Some training captions, where memorisation shows first. None if `following` are training
    captions already, or without two training pictures that could be copied."""
    if training is None or len(training.pictures) < 2 or following.name == TRAINING_CAPTIONS:
        return None
    captions = (picture.caption for picture in training.pictures)
    return some_captions(TRAINING_CAPTIONS, captions, RECALLED_PROMPTS)


def scorer(prompts: PromptSet, generator: Generator) -> str:
    """The bundled scorer, which knows creatures only; else the scorer of the literature."""
    bundled = {"creatures": True, "held-out": True, "original": False}
    return BUNDLED if bundled.get(prompts.name, is_small(generator)) else VIT_B_16


def with_colours(image_scorer: ImageScorer, prompts: PromptSet) -> ImageScorer:
    """For the bundled captions, a scorer that also reads the body's colour from the pixels."""
    if prompts.name not in ("creatures", "held-out"):
        return image_scorer
    pixels = module_if_here("bundled.pixels")
    return replace(image_scorer, colour=pixels.body_colour) if pixels else image_scorer


def has_subject(run: dict) -> bool:
    """Whether the model was taught one subject, by one prompt for all its pictures (DreamBooth)."""
    prompt = run.get("options", {}).get("instance_prompt")
    return isinstance(prompt, str) and bool(prompt)


def is_bundled(model: str) -> bool:
    return Path(model).resolve() == Path(DEFAULT_MODEL)


def is_small(generator: Generator) -> bool:
    """Whether the model is of the bundled kind, which draws only creatures."""
    return generator.pipe.unet.num_parameters() < SMALL_UNET_PARAMETERS
