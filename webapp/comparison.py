"""What the page compares the model with: its base, its checkpoints, its LoRA at other strengths,
and the votes on pairs of their pictures."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError
from core.run_folder import base_of_run
from sampling.model_info import model_name, read_run
from sampling.variants import Load, Variant, base_of, checkpoints_of, strengths_of
from webapp.model_registry import ModelRegistry
from webapp.votes import Votes

if TYPE_CHECKING:
    from sampling.generator import AppGenerator, PictureGenerator

NO_PAIR = (
    "There is nothing to compare with yet: neither this model nor one that was taught has the "
    "model here that it was trained from."
)
NOT_HERE = "This model is not here any more. Choose another pair."
BASE_NOT_HERE = "The model that {name} was trained from is not here to compare with."


@dataclass(frozen=True)
class Variants:
    """The models to compare with, and the votes. False where there are none."""

    base: PictureGenerator | None = None
    variants: tuple[Variant, ...] = ()
    votes: Votes = field(default_factory=Votes)

    def __bool__(self) -> bool:
        return bool(self.base or self.variants)


def variants_of(model: str, load: Load, votes_file: str | None = None) -> Variants:
    """A model's base, checkpoints and LoRA strengths, as far as they are here. None is loaded yet.

    `votes_file`: where the votes of blind comparisons are kept. Raises UserError where they cannot
    be, or where there is no base to compare with.
    """
    base = base_of(read_run(model), load)
    variants = (*checkpoints_of(model, load), *strengths_of(model, load))
    if votes_file is None:
        return Variants(base, variants)
    if base is None:
        raise UserError(
            f"--votes is for a model and its base; {model_name(model)} has none here. Leave it out."
        )
    return Variants(base, variants, Votes(votes_file, model_name(model), base.name))


@dataclass(frozen=True)
class Pair:
    """A model, its base, and what else it is compared with."""

    model: PictureGenerator
    base: PictureGenerator | None
    variants: tuple[Variant, ...]
    votes: Votes

    @property
    def of_base(self) -> PictureGenerator:
        """Raises UserError where the base is not here."""
        if self.base is None:
            raise UserError(NO_PAIR)
        return self.base


class Pairs:
    """The pairs to compare, by the name of their model: the app's own, and those of taught models,
    which come and go while the page is open."""

    def __init__(
        self, own: AppGenerator, variants: Variants | None = None,
        models: Mapping[str, PictureGenerator] | None = None,
    ):  # fmt: skip
        """`variants`: of the app's own model; `models`: those to choose from, a ModelRegistry where
        there are taught ones."""
        self._own, self._variants = own, variants or Variants()
        self._taught = models if isinstance(models, ModelRegistry) and models.grows else None
        self._votes: dict[tuple[str, str], Votes] = {}
        self._lock = threading.Lock()

    @property
    def grows(self) -> bool:
        return self._taught is not None

    @property
    def any(self) -> bool:
        """Whether there is something to compare, now or by and by."""
        return self.grows or bool(self._variants)

    @property
    def any_base(self) -> bool:
        return self.grows or self._variants.base is not None

    @property
    def own_name(self) -> str:
        return self._own.name

    def names(self) -> dict[str, str]:
        """The base's name by that of its model, of all pairs that there are now."""
        found = {self._own.name: self._variants.base.name} if self._variants.base else {}
        for name in self._taught.offered() if self._taught else ():
            if place := self._taught and self._taught.place_of_base(name):
                found[name] = model_name(place)
        return found

    def has(self, name: str | None) -> bool:
        """Whether a model is one of the taught ones."""
        return bool(name and self._taught and self._taught.taught(name))

    def pair(self, name: object = None) -> Pair:
        """The pair of a model, the app's own where none is named. Raises UserError where the model
        or its base is not here."""
        taught, known = self._taught, self._variants
        if taught is None or name in (None, self._own.name):
            return Pair(self._own, known.base, known.variants, known.votes)
        if not isinstance(name, str) or not self.has(name):
            raise UserError(NOT_HERE)
        base = self._base_of(taught, name)
        if base is None:
            raise UserError(BASE_NOT_HERE.format(name=name))
        votes = self.votes_on(name, base.name)
        return Pair(taught[name], base, tuple(taught.variants_of(name)), votes)

    def votes_on(self, model: str, base: str) -> Votes:
        """The votes on a model and its base. Raises UserError where they cannot be read."""
        own, known = self._variants, (model, base)
        if own.base and known == (self._own.name, own.base.name):
            return own.votes
        with self._lock:
            if known not in self._votes:
                self._votes[known] = own.votes.on(model, base)
            return self._votes[known]

    def _base_of(self, taught: ModelRegistry, name: str) -> PictureGenerator | None:
        """One that is in memory anyway, if it is the same model."""
        place, known = taught.place_of_base(name), self._variants.base
        if place and self._own.folder and _same(place, str(self._own.folder)):
            return self._own
        own_base = base_of_run(self._own.run)
        if place and known and own_base and _same(place, own_base):
            return known
        return taught.base_of(name)


def _same(place: str, other: str) -> bool:
    return place == other or Path(place).resolve() == Path(other).resolve()
