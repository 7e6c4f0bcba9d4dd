"""Defaults that depend on other options, or on how a resumed run began."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from core.errors import UserError
from training.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from training.config import Config
from core.run_folder import checkpoints_in

RANK = 4
OF_LORA = ("rank", "lora_alpha", "lora_dropout", "merge_lora")  # options that imply --method lora
LORA_TARGETS = ("to_k", "to_q", "to_v", "to_out.0")
OFFSET = 0.1  # of the noise, by --offset_noise

RATES = {  # learning rates, by what learns: the first that holds, unless the optimizer has its own
    "LoRA": 1e-4,
    "DreamBooth": 5e-6,
    "full": 1e-5,
}


def meant_by(options: dict) -> dict:
    """The values for options that are None, by name."""
    given = SimpleNamespace(**options)
    lora = any(options[name] not in (None, False) for name in OF_LORA)
    lora = lora or tuple(given.lora_target_modules) != LORA_TARGETS
    method = given.method or ("lora" if lora else "full")
    kinds = {
        "LoRA": method == "lora",
        "DreamBooth": given.instance_prompt is not None,
        "full": True,
    }
    rate = OPTIMIZERS[given.optimizer].learning_rate if given.optimizer in OPTIMIZERS else None
    rate = rate or next(RATES[kind] for kind, holds in kinds.items() if holds)
    defaults = {"method": method, "rank": RANK, "learning_rate": rate}
    defaults["noise_offset"] = OFFSET if given.offset_noise else 0.0
    return {name: value for name, value in defaults.items() if options[name] is None}


def rates_in_words() -> str:
    """The learning rates where none is given, for --help."""
    own = {name: kind.learning_rate for name, kind in OPTIMIZERS.items() if kind.learning_rate}
    special = {name: rate for name, rate in (RATES | own).items() if name != "full"}
    words = [f"{RATES['full']:g}", *(f"of {name} {rate:g}" for name, rate in special.items())]
    return ", ".join(words).replace("0.0001", "1e-4").replace("e-0", "e-")


def as_begun(config: Config) -> Config:
    """The options of a resumed run: those not given are as they were when it began."""
    then = _options_of_checkpoint(config.output, config.resume_from_checkpoint)
    earlier = {name: then.get(f"--{name}", getattr(config, name)) for name in config.unset}
    differing = {name: value for name, value in earlier.items() if value != getattr(config, name)}
    return replace(config, **differing) if differing else config


def _options_of_checkpoint(output: Path, wanted: str | None) -> dict:
    """The options saved in a run's checkpoints; {} without checkpoints.

    Damaged checkpoints are skipped here; resuming from one reports it.
    """
    from training.checkpoint_files import state_of  # torch: not for --help

    if wanted is None:
        return {}
    named = [place for place in (Path(wanted), output / wanted) if place.is_dir()]
    for folder in named or checkpoints_in(output).values():
        try:
            return dict(state_of(folder)["same"])
        except (OSError, ValueError, KeyError, TypeError, UserError):
            continue
    return {}
