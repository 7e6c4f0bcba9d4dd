"""What a training run draws at each validation: its validation prompts, and those of a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.prompts import SEED_STRIDE, drawable, read_prompts, some_captions

VALIDATION, HELD_OUT, KEPT, COPIES = "", "held-out", "kept", "training"  # below validation/


@dataclass(frozen=True)
class ValidationPrompts:
    """Prompts that are drawn at every validation, and the folder of their pictures."""

    place: str  # a folder below OUTPUT_DIR/validation; "" is that folder itself
    prompts: tuple[str, ...]
    images: int = 1  # per prompt

    def seeds(self, seed: int) -> list[int]:
        """The first seed of each prompt."""
        stride = SEED_STRIDE if self.place else 0  # validation prompts share their seeds
        return [seed + number * stride for number in range(len(self.prompts))]


def validation_sets(
    config, captions: Sequence[str] = (), held_out: Sequence[str] = ()
) -> list[ValidationPrompts]:
    """Everything that a run with these options draws at a validation; `captions`: of its training
    pictures. Raises UserError for prompts that cannot be read or drawn."""
    prompts = [ValidationPrompts(VALIDATION, config.prompts, config.num_validation_images)]
    if not (config.prompts and config.validation_scorer):
        return prompts if config.prompts else []
    more = (
        (HELD_OUT, config.validation_captions, held_out),
        (COPIES, config.validation_copies, captions),
    )
    for place, count, texts in more:
        if count and (found := some_captions(place, texts, count)):
            prompts.append(ValidationPrompts(place, found.prompts))
    if name := config.validation_keep_prompts:
        prompts.append(ValidationPrompts(KEPT, drawable(read_prompts(name)).prompts))
    return prompts
