"""The models of an evaluation: a base, models, their checkpoints, LoRAs at several strengths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError
from core.paths import ROOT, is_folder
from core.terminal import complain
from sampling.model_info import is_lora_folder, is_model_folder, model_name, read_run

if TYPE_CHECKING:
    from sampling.generator import Generator

MAX_LORA_SCALE = 10
Load = Callable[..., "Generator"]  # `Generator.load`, with device, dtype and back end


@dataclass(frozen=True)
class ComparedModel:
    """A model, a checkpoint or a LoRA at some strength, opened on demand."""

    name: str
    load: Callable[[], Generator]
    step: int | None = None
    opened: bool = False
    role: str = ""  # its folder in --save_images


def compared_models(
    models: list[str],
    load: Load,
    *,
    base: str | None = None,
    checkpoints: bool = False,
    lora_scales: list[float] | None = None,
) -> list[ComparedModel]:
    """The base first, if there is one; the first of `models` last, after its checkpoints.

    `base`: a model, "none", or None for the one that the first model's run.json names. Raises
    UserError for a missing model, and for one without the checkpoints or the LoRA that were chosen.
    """
    first, *others = models
    for scale in lora_scales or ():
        if not -MAX_LORA_SCALE <= scale <= MAX_LORA_SCALE:  # false for NaN, too
            raise UserError(f"--lora_scale is {scale}. Give -{MAX_LORA_SCALE} to {MAX_LORA_SCALE}.")
    for model in models:
        is_model_folder(model)  # raises for a missing model, before any is drawn
        if lora_scales and not is_lora_folder(model):
            raise UserError(f"--lora_scale is for LoRA folders; {model} is none. Leave it out.")
    found: list[ComparedModel] = []
    if base not in (None, "", "none"):
        is_model_folder(str(base))
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
    """A model, opened now; or a LoRA at each of its strengths, opened in turn."""
    if not scales:
        generator = load(model)
        yield ComparedModel(
            generator.name, lambda: generator, generator.run.get("steps"), True, role
        )
    for scale in scales or ():
        name = f"{model_name(model)} x {scale:g}"
        opened = partial(load, model, name=name, lora_scale=scale)
        yield ComparedModel(name, opened, role=f"{role}-x{scale:g}")


def _checkpoints(model: str, role: str, load: Load) -> Iterator[ComparedModel]:
    """A model's checkpoints by step, then its best/."""
    folder, name = Path(model), model_name(model)
    found = {
        int(place.name[11:]): place.name
        for place in folder.glob("checkpoint-*") if place.is_dir() and place.name[11:].isdecimal()
    }  # fmt: skip
    if not found:
        raise UserError(f"--checkpoints: {model} has no checkpoint-STEP folder. Leave it out.")
    for step, place in sorted(found.items()):
        opened = partial(load, model, name=f"{name}/{place}", checkpoint=place)
        yield ComparedModel(f"{name}/{place}", opened, step, role=f"{role}-{place}")
    best = folder / "best"
    if best.is_dir():
        opened = partial(load, str(best), name=f"{name}/best")
        yield ComparedModel(
            f"{name}/best", opened, read_run(str(best)).get("steps"), role=f"{role}-best"
        )


def _base(model: str, base: str | None, load: Load) -> Generator | None:
    """The base model, opened now."""
    if base:
        return None if base == "none" else load(base)
    named = read_run(model).get("base_model")
    if not named:
        return None
    here = ROOT / named
    try:
        return load(str(here) if is_folder(here) else named)
    except UserError as error:
        complain(f"note: compared with no base: {error}")
        return None
