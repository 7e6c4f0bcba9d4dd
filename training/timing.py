"""How long a run will take: measured on its first steps, which are thrown away."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from core.formatting import duration
from training.distillation import objective_of
from training.encode import encode_once
from training.loop import accumulate, batches
from training.model import load_model
from training.optimizer_step import stepper_for
from training.weights import WEIGHTS

if TYPE_CHECKING:
    from training.config import Config
    from training.dataset import CaptionedImages
    from training.run import Run

ENCODED = 32  # pictures whose encoding is measured
# A step passes each row forwards and backwards, about three forward passes. A picture takes the
# sampler's 20 steps with two rows each, of a forward pass.
PASSES_OF_A_ROW, PASSES_OF_A_PICTURE = 3, 40


@dataclass(frozen=True)
class Timing:
    """Seconds of the parts of a run."""

    load: float  # of the base model
    encode: float  # of all pictures
    step: float
    steps: float  # of all steps
    draw: float  # of validation pictures and of those of the class
    picture: float  # of drawing one of them

    @property
    def total(self) -> float:
        return self.load + self.encode + self.steps + self.draw

    def __str__(self) -> str:
        return f"about {duration(self.total)}: {self.step:.2f} s a step, measured"


def timing(config: Config, run: Run, images: CaptionedImages, steps: int) -> Timing:
    """The timing of a run of so many steps. Nothing is written, and nothing of it is kept."""
    begun = time.monotonic()
    model = load_model(config, run)
    loaded = time.monotonic()
    few = images.first(max(ENCODED, run.global_batch))
    latents = encode_once(few, model, run)
    encoded = time.monotonic()
    learner = WEIGHTS[config.method](model, config)
    objective = objective_of(learner, latents, config, run.device)
    stepper = stepper_for(learner.weights, config, run)
    module = run.prepare(learner)
    module.train()
    ends = []
    for _, batch in batches(latents, objective, config, run, 0, config.timed_steps + 1):
        stepper.rate = config.learning_rate
        losses = accumulate(module, batch, latents, objective, config, run)
        stepper.step()
        losses.sum().item()  # waits for the device
        ends.append(time.monotonic())
    # The first one warms everything up; others may be held up by whatever else runs here.
    step = min(later - earlier for earlier, later in pairwise(ends))
    rows = run.global_batch
    both = step * (1 + config.with_prior_preservation)
    picture = step / rows / PASSES_OF_A_ROW * PASSES_OF_A_PICTURE
    return Timing(
        load=loaded - begun,
        encode=(encoded - loaded) / len(few) * len(images),
        step=both,
        steps=both * steps,
        draw=picture * drawn_pictures(config, len(images), rows, steps),
        picture=picture,
    )


def drawn_pictures(config: Config, pictures: int, global_batch: int, steps: int) -> int:
    """Pictures that a run draws: at its validations, and of the class. At most, as some of the
    class may be there already."""
    validations = 1 + -(-steps // config.steps_between_validations(pictures, global_batch))
    several = len(config.prompts) * config.num_validation_images
    if config.validation_scorer:
        several += config.validation_captions + config.validation_copies
    of_class = config.num_class_images if config.with_prior_preservation else 0
    return validations * several + of_class


def without_traces(config: Config) -> Config:
    """The options for a measurement: nothing is read from or kept in --latents_dir."""
    return replace(config, latents_dir=None)
