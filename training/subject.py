"""DreamBooth: one subject, plus pictures of its class (Ruiz et al. 2023); and the same for styles.

A subject is a few pictures under one prompt; that is what the data set gives. To preserve
the class, each step also learns from pictures of it that the base model itself drew. Captioned
pictures of a style preserve in the same way whatever the prompts in a file name: rehearsal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from core.errors import UserError
from core.file_names import PICTURE_SUFFIXES
from core.files import remove_leftovers
from core.prompt_files import read_rows
from data.folder_walk import files_below
from data.source import ReadOptions
from data.source_detection import open_source, pictures_alone
from training.config import Config
from training.dataset import CaptionedImages
from training.encode import encode_once, side_of
from training.latents import Batch, Latents
from training.model import DTYPES

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from training.run import Run

# Draws each prompt from its seed; `save(path)` of a picture is atomic.
Draw = Callable[[object, list[str], list[int]], Iterable]


def with_class(
    latents: Latents, pipe: StableDiffusionPipeline, run: Run, draw: Draw
) -> SubjectLatents:
    """The latents of the subject and of its class.

    Raises `UserError` if --aspect_ratio_buckets has given the subject other shapes.
    """
    config = run.config
    side = side_of(pipe, config)
    if any(bucket.shape != (side, side) for bucket in latents.buckets):
        raise UserError(
            "--with_prior_preservation puts a square picture of the base model beside each of "
            "yours: leave out --aspect_ratio_buckets, or --with_prior_preservation."
        )
    images = class_images(config, pipe, run, draw)
    of_class = encode_once(images, pipe, run)
    return SubjectLatents(latents, of_class, config.prior_loss_weight)


def class_images(
    config: Config, pipe: StableDiffusionPipeline, run: Run, draw: Draw
) -> CaptionedImages:
    """The class pictures in --class_data_dir; the base model draws missing ones.

    Picture n comes from seed n, so that a run stopped here continues where it was. Those of
    --prior_prompts have their captions beside them, as any pictures there must have then.
    """
    prompts = prior_prompts(config)
    folder = Path(config.class_data_dir) if config.class_data_dir else config.output / "class"
    if run.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder, "class-*.png")
        here = [path for path in files_below(folder) if path.suffix.lower() in PICTURE_SUFFIXES]
        paths = [folder / f"class-{number:05}.png" for number in range(config.num_class_images)]
        free = [number for number, path in enumerate(paths) if not path.exists()]
        missing = free[: max(0, config.num_class_images - len(here))]
        if missing:
            what = config.prior_prompts or f"the class, '{config.class_prompt}'"
            run.say(f"Drawing {len(missing)} pictures of {what}.")
            _draw_missing(pipe, run, draw, {number: paths[number] for number in missing}, prompts)
    run.accelerator.wait_for_everyone()
    if config.prior_prompts:
        return CaptionedImages(of_class(config), open_source(str(folder), ReadOptions(strict=True)))
    return CaptionedImages(of_class(config), pictures_alone(folder, prompts[0]))


def prior_prompts(config: Config) -> list[str]:
    """What the base model draws: picture n is of prompt n, and the first one follows the last."""
    if config.prior_prompts:
        return [row.prompt() for row in read_rows(config.prior_prompts)]
    return [config.class_prompt or ""]


def of_class(config: Config) -> Config:
    """The options for class pictures: all are used, in an order of their own."""
    return replace(
        config, held_out=0.0, max_train_samples=None, aspect_ratio_buckets=False,
        seed=(config.seed + 1) % 2**32,
    )  # fmt: skip


@torch.no_grad()
def _draw_missing(
    pipe: StableDiffusionPipeline,
    run: Run,
    draw: Draw,
    paths: dict[int, Path],
    prompts: list[str],
) -> None:
    """Draw the class pictures of these numbers."""
    parts = (pipe.unet, pipe.vae, pipe.text_encoder)
    homes = [part.device for part in parts]
    pipe.to(run.device)
    numbers, size = list(paths), run.config.sample_batch_size
    for first in tqdm(range(0, len(numbers), size), "Drawing the class", leave=False):
        seeds = numbers[first : first + size]
        told = [prompts[seed % len(prompts)] for seed in seeds]
        with precision_of_drawing(run):
            pictures = draw(pipe, told, seeds)
        for seed, prompt, picture in zip(seeds, told, pictures, strict=True):
            if run.config.prior_prompts:  # first, so that no picture is ever without its caption
                paths[seed].with_suffix(".txt").write_text(prompt + "\n", encoding="utf-8")
            picture.save(paths[seed])
    for part, home in zip(parts, homes, strict=True):
        part.to(home)


def precision_of_drawing(run: Run) -> AbstractContextManager:
    """Context for sampling in --prior_generation_precision, by default as in training."""
    name = run.config.prior_generation_precision
    if name is None:
        return run.accelerator.autocast()
    half = DTYPES.get(name, torch.float32)
    return torch.autocast(run.device.type, half, enabled=half != torch.float32)


class SubjectLatents:
    """Latents of a subject and of its class: each step learns from equally many of both.

    Rows alternate between subject and class, so that each pass holds pairs.
    """

    rows_per_picture = 2

    def __init__(self, subject: Latents, of_class: Latents, prior_loss_weight: float):
        """`prior_loss_weight`: of a class picture, against 1 for the subject."""
        self.subject, self.of_class = subject, of_class
        self.prior_loss_weight = prior_loss_weight
        self.held_out, self.images = subject.held_out, subject.images
        self.clean, self.encoded, self.buckets = subject.clean, subject.encoded, subject.buckets
        both = subject.fingerprint + of_class.fingerprint
        self.fingerprint = hashlib.sha256(both.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.subject)

    def pictures_per_step(self, size: int) -> float:
        """The mean number of subject pictures per step."""
        return self.subject.pictures_per_step(size)

    def names(self, step: int, size: int) -> list[str]:
        """Files of the rows of a step, in order."""
        subject = self.subject.names(step, size)
        both = zip(subject, self.of_class.names(step, len(subject)), strict=True)
        return [name for pair in both for name in pair]

    def batch(self, step: int, size: int) -> Batch:
        """`size` pictures of each: 2 x size rows."""
        subject = self.subject.batch(step, size)
        of_class = self.of_class.batch(step, len(subject["weight"]))
        of_class["weight"] *= self.prior_loss_weight
        return {
            name: torch.stack([subject[name], of_class[name]], 1).flatten(0, 1) for name in subject
        }


TrainingLatents = Latents | SubjectLatents  # what a run learns from
