"""What options stand for that nobody gave, where that depends on the others or on the past."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from training.optimizers import OPTIMIZERS

RANK = 4
OF_LORA = ("rank", "lora_alpha", "lora_dropout", "merge_lora")  # options: who gives one means LoRA
LORA_TARGETS = ("to_k", "to_q", "to_v", "to_out.0")
OFFSET = 0.1  # of the noise, by --offset_noise

RATES = {  # learning rates, by what learns: the first that holds, unless the optimizer has its own
    "LoRA": 1e-4,
    "DreamBooth": 5e-6,
    "full": 1e-5,
}


def meant_by(options: dict) -> dict:
    """The values of those options that are None, by their names."""
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
    meant = {"method": method, "rank": RANK, "learning_rate": rate}
    meant["noise_offset"] = OFFSET if given.offset_noise else 0.0
    return {name: value for name, value in meant.items() if options[name] is None}


def rates_in_words() -> str:
    """The learning rates where none is given, for --help."""
    own = {name: kind.learning_rate for name, kind in OPTIMIZERS.items() if kind.learning_rate}
    special = {name: rate for name, rate in (RATES | own).items() if name != "full"}
    words = [f"{RATES['full']:g}", *(f"of {name} {rate:g}" for name, rate in special.items())]
    return ", ".join(words).replace("0.0001", "1e-4").replace("e-0", "e-")


def as_begun(config):
    """The options; those that nobody gave, as they were when the run began that goes on now."""
    then = _options_of_checkpoint(config.output, config.resume_from_checkpoint)
    kept = {name: then.get(f"--{name}", getattr(config, name)) for name in config.unset}
    differing = {name: value for name, value in kept.items() if value != getattr(config, name)}
    return replace(config, **differing) if differing else config


def _options_of_checkpoint(output: Path, wanted: str | None) -> dict:
    """Those that the checkpoints of a run have in common, as they hold them; {} if there is none.

    A damaged checkpoint is passed over here; who resumes from it will say so.
    """
    from training.checkpoint_files import state_of  # torch: not for --help

    if wanted is None:
        return {}
    named = [place for place in (Path(wanted), output / wanted) if place.is_dir()]
    for folder in named or sorted(output.glob("checkpoint-*")):
        try:
            return dict(state_of(folder)["same"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}
