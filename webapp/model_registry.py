"""Models that can draw beside the app's own: those known when it starts, and those that training
runs have made by now."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError
from core.run_folder import CHECKPOINT, CHECKPOINT_STATE, base_of_run, checkpoints_in
from sampling.few_steps import settings_of_run
from sampling.lazy_generators import SlotGenerator
from sampling.lora import lora_file
from sampling.model_info import is_lora_folder, is_model_folder, model_name, read_run
from sampling.variants import Variant, checkpoints_of, strengths_of
from webapp.runs.folder import RunFolder, RunsFolder
from webapp.runs.state import manifest_of

if TYPE_CHECKING:
    from sampling.generator import PictureGenerator
    from sampling.variants import Load

MAX_TAUGHT = 40  # runs whose models are offered, the newest
MAX_KNOWN = 200  # generators that are kept, most of them without a model in memory


@dataclass(frozen=True)
class TaughtModel:
    """The model of a run: the finished one, or a checkpoint."""

    name: str
    place: Path

    @property
    def is_checkpoint(self) -> bool:
        return bool(CHECKPOINT.fullmatch(self.place.name))

    @property
    def is_lora(self) -> bool:
        if self.is_checkpoint:
            return lora_file(str(self.place.parent), self.place.name).is_file()
        return is_lora_folder(str(self.place))

    @property
    def run(self) -> dict:
        """Its run.json; {} where that cannot be read."""
        try:
            return read_run(str(self.place))
        except UserError:
            return {}

    @property
    def version(self) -> tuple:
        """Differs once it has been trained again. Raises OSError where it is gone."""
        mark = CHECKPOINT_STATE if self.is_checkpoint else "run.json"
        found = (self.place / mark).stat()
        run_id = self.run.get("run_id") or found.st_ino
        return str(self.place), run_id, self.run.get("steps")


class ModelRegistry(Mapping[str, SlotGenerator]):
    """What else can draw instead of the app's model, by name.

    Taught models are read from the folder of the runs whenever they are asked for, so that they
    come and go with it. The newest runs are listed, each by its finished model and by its newest
    checkpoint where that has learned more; any checkpoint can be had by its name. Thread-safe.
    """

    def __init__(
        self, load: Load, picks: Mapping[str, SlotGenerator] | None = None,
        slot: list[SlotGenerator] | None = None, own: str = "", runs: RunsFolder | None = None,
    ):  # fmt: skip
        """`picks`: the models that are known; `slot`: holds the model that is open, of picks and
        of taught ones; `own`: the name of the app's."""
        self._load, self._picks, self._runs = load, dict(picks or {}), runs
        self._own = own
        self._slot: list[SlotGenerator] = [] if slot is None else slot
        self._base_slot: list[SlotGenerator] = []  # one base beside it: the two are compared
        self._known: OrderedDict[tuple, SlotGenerator] = OrderedDict()
        self._lock = threading.Lock()

    def with_runs(self, runs: RunsFolder) -> ModelRegistry:
        """The same, and the models of the runs in a folder."""
        return ModelRegistry(self._load, self._picks, self._slot, self._own, runs)

    @property
    def grows(self) -> bool:
        """Whether there may be other models by and by."""
        return self._runs is not None

    def __getitem__(self, name: str) -> SlotGenerator:
        if name in self._picks:
            return self._picks[name]
        if (model := self.taught(name)) is None:
            raise KeyError(name)
        try:
            key = (name, *model.version)
        except OSError as error:  # deleted at this moment
            raise KeyError(name) from error
        load = partial(self._load, str(model.place), name=name)
        generator = self._generator(key, name, load, model.is_lora)
        generator.draws = settings_of_run(model.run)
        return generator

    def __iter__(self) -> Iterator[str]:
        yield from self._picks
        yield from self.offered()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._picks or self.taught(name) is not None)

    def offered(self) -> list[str]:
        """The names of taught models that a list shows, the newest run first."""
        runs = self._runs.runs()[:MAX_TAUGHT] if self._runs else []
        return [self.name_of(place) for run in runs for place in places_of(run)]

    def name_of(self, place: Path) -> str:
        """What the model of a run is called: RUN or RUN/checkpoint-STEP, behind the name of the
        runs' folder where another model has that name."""
        assert self._runs is not None  # else there are no runs
        name = "/".join(place.relative_to(self._runs.path).parts)
        run = name.partition("/")[0]
        taken = run == self._own or run in self._picks
        return f"{self._runs.path.name}/{name}" if taken else name

    def newest(self, run: str) -> str:
        """The name of the newest model of a run. Raises UserError where there is none."""
        place = newest_place(self._runs.run(run)) if self._runs else None
        if place is None:
            raise UserError(f"{run} has nothing to draw with yet. Wait for its first checkpoint.")
        return self.name_of(place)

    def taught(self, name: str) -> TaughtModel | None:
        """A model by its name; None where no run has made it, or it is gone."""
        if self._runs is None:
            return None
        run, step = name.removeprefix(f"{self._runs.path.name}/"), ""
        run, _, step = run.partition("/")
        try:
            place = self._runs.run(run).path / step
        except (UserError, ValueError, OSError):  # such as a name with a null character
            return None
        if step:
            is_here = CHECKPOINT.fullmatch(step) and (place / CHECKPOINT_STATE).is_file()
        else:
            is_here = is_model(place)
        return TaughtModel(name, place) if is_here and self.name_of(place) == name else None

    def close(self) -> None:
        """Free the memory of the models that are open. Not while one draws."""
        for slot in (self._slot, self._base_slot):
            while slot:
                slot.pop().close()

    def base_of(self, name: str) -> PictureGenerator | None:
        """The base of a taught model; None where it is not here."""
        if not (place := self.place_of_base(name)):
            return None
        title = model_name(place)
        key = ("base", place)
        return self._generator(key, title, partial(self._load, place), False, self._base_slot)

    def place_of_base(self, name: str) -> str | None:
        """The folder or hub id of a taught model's base; None where it cannot be opened."""
        model = self.taught(name)
        base = base_of_run(model.run) if model else None
        try:
            if base:
                is_model_folder(base)
        except UserError:
            return None
        return base

    def variants_of(self, name: str) -> list[Variant]:
        """The checkpoints of a taught model's run, and its LoRA at other strengths."""
        model = self.taught(name)
        if model is None:
            return []
        folder = model.place.parent if model.is_checkpoint else model.place
        others = [v for v in checkpoints_of(str(folder), self._load) if v.name != model.place.name]
        return [*others, *([] if model.is_checkpoint else strengths_of(str(folder), self._load))]

    def _generator(
        self, key: tuple, name: str, load: Callable[[], PictureGenerator], is_lora: bool,
        slot: list[SlotGenerator] | None = None,
    ) -> SlotGenerator:  # fmt: skip
        with self._lock:
            generator = self._known.get(key)
            if generator is None:
                generator = SlotGenerator(name, load, self._slot if slot is None else slot, is_lora)
                self._known[key] = generator
            self._known.move_to_end(key)
            while len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return generator


def places_of(run: RunFolder) -> Sequence[Path]:
    """Folders of a run that can draw: its finished model, and its newest checkpoint where that has
    learned more."""
    checkpoints = {
        step: place
        for step, place in checkpoints_in(run.path).items() if (place / CHECKPOINT_STATE).is_file()
    }  # fmt: skip
    done = -1
    places = []
    if is_model(run.path):
        places.append(run.path)
        steps = manifest_of(run.path).get("steps")
        done = steps if isinstance(steps, int) else done
    if checkpoints and max(checkpoints) > done:
        places.append(checkpoints[max(checkpoints)])
    return places


def newest_place(run: RunFolder) -> Path | None:
    """The folder of the newest model of a run; None where there is none yet."""
    places = places_of(run)
    return places[-1] if places else None


def is_model(folder: Path) -> bool:
    """Whether a run has finished a model there, of which its run.json can be read."""
    is_there = (folder / "model_index.json").is_file() or is_lora_folder(str(folder))
    return is_there and bool(manifest_of(folder))
