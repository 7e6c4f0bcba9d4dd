"""The models that are compared: a base, models, their checkpoints, LoRAs at several strengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError
from core.run_folder import base_of_run, checkpoints_in
from core.terminal import complain
from sampling.pipeline import is_model_folder, model_name, read_run
from sampling.trained_weights import is_lora_folder
from sampling.variants import Load, scaled_lora

if TYPE_CHECKING:
    from sampling.generator import Generator

LORA_SCALES = 10


@dataclass(frozen=True)
class ComparedModel:
    """A model, a checkpoint of one or a LoRA at some strength; `load` opens it."""

    name: str
    load: Callable[[], Generator]
    step: int | None = None
    opened: bool = False
    role: str = ""  # its folder in --save_images


def contenders_of(
    models: list[str],
    load: Load,
    *,
    base: str | None = None,
    checkpoints: bool = False,
    lora_scales: list[float] | None = None,
) -> list[ComparedModel]:
    """The base first, if there is one; the first of `models` last, after its checkpoints.

    `base`: what to compare with; "none"; None: what the first model's run.json names. Raises
    UserError for a model that is not there, or has no checkpoints or no LoRA where they are wanted.
    """
    first, *others = models
    for scale in lora_scales or ():
        if not -LORA_SCALES <= scale <= LORA_SCALES:  # nor is it where it is no number
            raise UserError(f"--lora_scale is {scale}. Give -{LORA_SCALES} to {LORA_SCALES}.")
    for model in models:
        is_model_folder(model)  # all must be there before one is drawn
        if lora_scales and not is_lora_folder(model):
            raise UserError(f"--lora_scale is for LoRA folders; {model} is none. Leave it out.")
    found = []
    if generator := _base(first, base, load):
        found.append(ComparedModel(generator.name, lambda: generator, opened=True, role="base"))
    for number, model in enumerate([*others, first]):
        role = "model" if model is first else f"model-{number + 2}"
        if checkpoints:
            found += _checkpoints(model, role, load)
        found += _models(model, role, load, lora_scales)
    return found


def _models(
    model: str, role: str, load: Load, scales: list[float] | None
) -> Iterator[ComparedModel]:
    """A model, opened now; a LoRA at each of its strengths, each opened in its turn."""
    if not scales:
        generator = load(model)
        yield ComparedModel(
            generator.name, lambda: generator, generator.run.get("steps"), True, role
        )
    for scale in scales or ():
        name, opened = scaled_lora(model, scale, load)
        yield ComparedModel(name, opened, role=f"{role}-x{scale:g}")


def _checkpoints(model: str, role: str, load: Load) -> Iterator[ComparedModel]:
    """A model's checkpoints, in the order of their steps, and its best/."""
    folder, name = Path(model), model_name(model)
    found = checkpoints_in(folder)
    if not found:
        raise UserError(f"--checkpoints: {model} has no checkpoint-STEP folder. Leave it out.")
    for step, place in found.items():
        opened = partial(load, model, name=f"{name}/{place.name}", checkpoint=place.name)
        yield ComparedModel(f"{name}/{place.name}", opened, step, role=f"{role}-{place.name}")
    best = folder / "best"
    if best.is_dir():
        opened = partial(load, str(best), name=f"{name}/best")
        yield ComparedModel(
            f"{name}/best", opened, read_run(str(best)).get("steps"), role=f"{role}-best"
        )


def _base(model: str, base: str | None, load: Load) -> Generator | None:
    """The model to compare with, opened now."""
    if base:
        return None if base == "none" else load(base)
    named = base_of_run(read_run(model))
    if not named:
        return None
    try:
        return load(named)
    except UserError as error:
        complain(f"note: compared with no base: {error}")
        return None
