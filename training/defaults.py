"""What options stand for that nobody gave, where that depends on the others or on the past."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from core.run_folder import checkpoints_in
from training.checkpoint import state_of

RANK = 4
OF_LORA = ("rank", "lora_alpha", "lora_dropout", "merge_lora")  # options: who gives one means LoRA
LORA_TARGETS = ("to_k", "to_q", "to_v", "to_out.0")
OFFSET = 0.1  # of the noise, by --offset_noise

RATES = {  # learning rates, by what learns: the first that holds
    "muon": 0.02,
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
        "muon": given.optimizer == "muon",
        "LoRA": method == "lora",
        "DreamBooth": given.instance_prompt is not None,
        "full": True,
    }
    rate = next(RATES[kind] for kind, holds in kinds.items() if holds)
    meant = {"method": method, "rank": RANK, "learning_rate": rate}
    meant["noise_offset"] = OFFSET if given.offset_noise else 0.0
    return {name: value for name, value in meant.items() if options[name] is None}


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
    if wanted is None:
        return {}
    named = [place for place in (Path(wanted), output / wanted) if place.is_dir()]
    for folder in named or checkpoints_in(output).values():
        try:
            return dict(state_of(folder)["same"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}
