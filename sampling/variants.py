"""The models beside the app's own: its base, its checkpoints, a LoRA at other strengths.

Each is opened when it first draws: in the worker's thread, like all drawing.
"""

import gc
import logging
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError
from core.paths import is_folder
from core.run_folder import base_of_run, checkpoints_in
from sampling.pipeline import is_model_folder, model_name, read_run
from sampling.single_file import is_single_file
from sampling.trained_weights import is_lora_folder

if TYPE_CHECKING:
    from sampling.generator import Generator
    from sampling.image import Picture

MAX_MODELS = 100  # below a folder, to choose from
MAX_CHECKPOINTS = 12  # to choose from; of more, the first, the last and some between
USUAL_CHECKPOINTS = 3  # chosen until the visitor chooses
STRENGTHS = {0.2: False, 0.4: True, 0.7: True, 0.85: False, 1.15: False, 1.3: True, 1.6: False,
             2.0: False}  # of a LoRA, whether it is chosen until the visitor chooses  # fmt: skip
Load = Callable[..., "Generator"]  # `Generator.load`, with device and dtype


class LazyGenerator:
    """A Generator that is opened when it first draws, and stays open."""

    def __init__(self, name: str, load: "Callable[[], Generator]"):
        self.name = name
        self._load = load
        self._generator: Generator | None = None

    def dropped_words(self, prompt: str) -> str:
        return self._opened().dropped_words(prompt)

    def pictures(self, *job, **more) -> "Iterator[Picture]":
        return self._opened().pictures(*job, **more)

    def _opened(self) -> "Generator":
        try:
            self._generator = self._generator or self._load()
        except UserError as error:  # its words are for whoever started the app: they hold paths
            logging.getLogger(__name__).warning("%s", error)
            raise UserError(
                f"{self.name} cannot be opened; the app's terminal says why. Leave it out."
            ) from None
        return self._generator


class TransientGenerator(LazyGenerator):
    """One that is closed after each job: however many there are, memory holds one at a time."""

    def pictures(self, *job, **more) -> "Iterator[Picture]":
        try:
            yield from super().pictures(*job, **more)
        except Exception as error:
            # Else the model would live for as long as somebody keeps the error.
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            self._generator = None
            gc.collect()


class SlotGenerator(LazyGenerator):
    """One that stays open until another of its `slot` is opened: memory holds one of them."""

    def __init__(self, name: str, load: "Callable[[], Generator]", slot: "list[SlotGenerator]"):
        super().__init__(name, load)
        self._slot = slot

    def _opened(self) -> "Generator":
        if self._slot and self._slot[0] is not self:
            self._slot.pop()._generator = None
            gc.collect()
        generator = super()._opened()
        self._slot[:] = [self]
        return generator


@dataclass(frozen=True)
class Variant:
    """A state of the app's model that it can be compared with."""

    name: str
    generator: "Generator"
    strength: float = 1.0  # 0: the base, 1: all that was learned
    usual: bool = True  # chosen until the visitor chooses


def picks_of(model: str, load: Load, folder: str | None = None) -> "dict[str, SlotGenerator]":
    """What else can draw instead of the app's model, by name: its base, its checkpoints, a LoRA at
    other strengths, and the models right below `folder`. Nothing is opened yet.

    Raises UserError where there is no such folder, or no model in it.
    """
    slot, found = [], {}
    base = base_of(read_run(model), load)
    named = [(each.name, each.generator) for each in (
        *checkpoints_of(model, load), *strengths_of(model, load))]  # fmt: skip
    if base:
        named.insert(0, (base.name, base))
    named += [(name, LazyGenerator(name, opened)) for name, opened in _below(folder, model, load)]
    for name, generator in named:
        found.setdefault(name, SlotGenerator(generator.name, generator._load, slot))
    return found


def _below(folder: str | None, model: str, load: Load) -> "Iterator[tuple[str, Callable]]":
    if folder is None:
        return
    if not is_folder(folder):
        raise UserError(f"--models: there is no folder {folder}. Check the path.")
    places = sorted(Path(folder).iterdir(), key=lambda place: place.name.casefold())
    models = [place for place in places if _is_model(place)]
    if not models:
        raise UserError(f"--models: no model lies right below {folder}. Name a folder of models.")
    for place in models[:MAX_MODELS]:
        if place.resolve() != Path(model).resolve():
            yield model_name(str(place)), partial(load, str(place))


def _is_model(place: Path) -> bool:
    """Whether it can be opened, by its name and what lies in it: a pipeline, a LoRA, one file."""
    if place.name.startswith("."):
        return False
    if place.is_dir():
        return (place / "model_index.json").is_file() or is_lora_folder(str(place))
    return is_single_file(str(place))


def base_of(run: dict, load: Load) -> LazyGenerator | None:
    """The model that run.json says this one was tuned from; None where it is not here."""
    if not (base := base_of_run(run)):
        return None
    try:
        is_model_folder(base)
    except UserError:
        return None
    return LazyGenerator(model_name(base), partial(load, base))


def checkpoints_of(model: str, load: Load) -> list[Variant]:
    """The checkpoints in a model folder, in the order of their steps, and its best/."""
    name, folder = model_name(model), Path(model)
    places = spread([path.name for path in checkpoints_in(folder).values()], MAX_CHECKPOINTS)
    usual = spread(places, USUAL_CHECKPOINTS)
    found = []
    for place in places:
        opened = partial(load, model, name=f"{name}/{place}", checkpoint=place)
        found.append(Variant(place, TransientGenerator(place, opened), usual=place in usual))
    if (folder / "best").is_dir():
        opened = partial(load, str(folder / "best"), name=f"{name}/best")
        found.append(Variant("best", TransientGenerator("best", opened)))
    return found


def strengths_of(model: str, load: Load) -> list[Variant]:
    """A LoRA at other strengths than its own; none of what is no LoRA."""
    if not is_lora_folder(model):
        return []
    found = []
    for strength, usual in STRENGTHS.items():
        name = f"at {strength:.0%}".replace("%", " %")
        _, opened = scaled_lora(model, strength, load)
        found.append(Variant(name, TransientGenerator(name, opened), strength, usual))
    return found


def scaled_lora(model: str, scale: float, load: Load) -> "tuple[str, Callable[[], Generator]]":
    """The name of a LoRA that counts `scale` times, and what opens it."""
    name = f"{model_name(model)} x {scale:g}"
    return name, partial(load, model, name=name, lora_scale=scale)


def spread(values: list, most: int) -> list:
    """The first, the last and some between: `most` (at least 2) of them, or all if they are few."""
    if len(values) <= most:
        return values
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]
