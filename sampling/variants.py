"""The models beside the app's own: its base, its checkpoints, a LoRA at other strengths.

Each is opened when it first draws: in the worker's thread, like all drawing.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path

from core.errors import UserError
from core.paths import is_folder
from core.run_folder import base_of_run, checkpoints_in
from sampling.few_steps import settings_of_run
from sampling.generator import PictureGenerator
from sampling.lazy_generators import LazyGenerator, SlotGenerator, TransientGenerator
from sampling.model_info import is_lora_folder, is_model_folder, model_name, read_run
from sampling.single_file import is_single_file

MAX_MODELS = 100  # offered of a folder of models
MAX_CHECKPOINTS = 12  # offered; of more, the first, the last and some between
USUAL_CHECKPOINTS = 3  # of them that are selected at first
STRENGTHS = {0.2: False, 0.4: True, 0.7: True, 0.85: False, 1.15: False, 1.3: True, 1.6: False,
             2.0: False}  # of a LoRA: whether it is selected at first  # fmt: skip
Load = Callable[..., PictureGenerator]  # `Generator.load`, with device, dtype and back end


@dataclass(frozen=True)
class Variant:
    """A state of the app's model that it can be compared with."""

    name: str
    generator: PictureGenerator
    strength: float = 1.0  # 0: the base, 1: all that was learned
    usual: bool = True  # selected at first


def picks_of(
    model: str, load: Load, folder: str | None = None, slot: list[SlotGenerator] | None = None
) -> dict[str, SlotGenerator]:
    """What else can draw instead of the app's model, by name: its base, its checkpoints, and the
    models right below `folder`. Nothing is opened yet; `slot` will hold the one that is open.

    Raises UserError where there is no such folder, or no model in it.
    """
    slot = [] if slot is None else slot
    picks: dict[str, SlotGenerator] = {}
    if base := base_of(read_run(model), load):
        picks[base.name] = SlotGenerator(base.name, base.load, slot)
    for name, load_checkpoint in _checkpoint_loads(model, load).items():
        is_lora = is_lora_folder(model)
        draws = settings_of_run(read_run(model))
        picks.setdefault(name, SlotGenerator(name, load_checkpoint, slot, is_lora, draws))
    known = Path(base_of_run(read_run(model)) or model).resolve()
    for place in _below(folder, model):
        if Path(place).resolve() == known:  # it stands there as the base
            continue
        name = _free_name(Path(place), {model_name(model), *picks})
        picks[name] = SlotGenerator(
            name, partial(load, place, name=name), slot, is_lora_folder(place),
            settings_of_run(read_run(place)),
        )  # fmt: skip
    return picks


def _free_name(place: Path, taken: Collection[str]) -> str:
    """The name of a model, or a longer one where another model has it."""
    names = model_name(str(place)), place.name, f"{place.parent.name}/{place.name}"
    numbered = (f"{names[-1]} ({number})" for number in count(2))
    return next(name for name in chain(names, numbered) if name not in taken)


def _below(folder: str | None, model: str) -> Iterator[str]:
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
            yield str(place)


def _is_model(place: Path) -> bool:
    """Whether it looks like a model: a pipeline, a LoRA, or a single file."""
    if place.name.startswith("."):
        return False
    return _has_model(place) if place.is_dir() else is_single_file(str(place))


def _has_model(folder: Path) -> bool:
    return (folder / "model_index.json").is_file() or is_lora_folder(str(folder))


def base_of(run: dict, load: Load) -> LazyGenerator | None:
    """The base model that run.json names; None where it is not here and can be no hub id."""
    if not (base := base_of_run(run)):
        return None
    try:
        is_model_folder(base)
    except UserError:
        return None
    return LazyGenerator(model_name(base), partial(load, base))


def checkpoints_of(model: str, load: Load) -> list[Variant]:
    """The checkpoints in a model folder, in the order of their steps, and its best/."""
    loads = _checkpoint_loads(model, load)
    usual = {*spread([name for name in loads if name != "best"], USUAL_CHECKPOINTS), "best"}
    return [
        Variant(name, _transient(name, load_one), usual=name in usual)
        for name, load_one in loads.items()
    ]


def _checkpoint_loads(model: str, load: Load) -> dict[str, Callable[[], PictureGenerator]]:
    """What opens each checkpoint of a run's folder, which need not hold a model yet, and its
    best/, by name."""
    name, folder = model_name(model), Path(model)
    is_model = _has_model(folder)
    checkpoints = [path.name for path in checkpoints_in(folder).values()]
    loads: dict[str, Callable[[], PictureGenerator]] = {
        checkpoint: partial(load, model, name=f"{name}/{checkpoint}", checkpoint=checkpoint)
        if is_model else partial(load, str(folder / checkpoint), name=f"{name}/{checkpoint}")
        for checkpoint in spread(checkpoints, MAX_CHECKPOINTS)
    }  # fmt: skip
    if (folder / "best").is_dir():
        loads["best"] = partial(load, str(folder / "best"), name=f"{name}/best")
    return loads


def strengths_of(model: str, load: Load) -> list[Variant]:
    """A LoRA at other strengths than its own; none for other models."""
    if not is_lora_folder(model):
        return []
    variants = []
    for strength, usual in STRENGTHS.items():
        name = f"at {strength:.0%}".replace("%", " %")
        _, load_one = scaled_lora(model, strength, load)
        variants.append(Variant(name, _transient(name, load_one), strength, usual))
    return variants


def _transient(name: str, load: Load) -> TransientGenerator:
    """Opened for one drawing: compiling it would take longer than that."""
    return TransientGenerator(name, partial(load, compiled="if cached"))


def scaled_lora(model: str, scale: float, load: Load) -> tuple[str, Callable[[], PictureGenerator]]:
    """The name of a LoRA at a strength, and what opens it."""
    name = f"{model_name(model)} x {scale:g}"
    return name, partial(load, model, name=name, lora_scale=scale)


def spread(values: list, limit: int) -> list:
    """At most `limit` (at least 2) of the values: the first, the last and some evenly between."""
    if len(values) <= limit:
        return values
    return [values[round(i * (len(values) - 1) / (limit - 1))] for i in range(limit)]
