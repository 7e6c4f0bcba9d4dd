"""What the page compares the model with: its base, its checkpoints, its LoRA at other strengths,
and the votes on pairs of their pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from core.errors import UserError
from sampling.model_info import model_name, read_run
from sampling.variants import Load, Variant, base_of, checkpoints_of, strengths_of
from webapp.votes import Votes

if TYPE_CHECKING:
    from sampling.generator import PictureGenerator


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
