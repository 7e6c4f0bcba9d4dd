"""The plan of a run, made before the start: steps, memory, disk, and options that make it fit.

1 GB is 10^9 bytes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

from core.errors import UserError
from core.files import replaced
from core.formatting import amount, size
from core.precision import fastest_precision
from training.config import Config
from training.memory import BaseModel, MemoryNeeds, UnknownMemory
from training.model import DTYPES
from training.option import flags
from training.option_warnings import IN_BACKWARD

if TYPE_CHECKING:
    from training.timing import Timing

CARDS = (8, 12, 16, 24, 40, 80)  # GB
PARTS = ("UNet", "text encoder")  # that can be trained


@dataclass(frozen=True)
class Plan:
    """The plan of a run; `str` of it is for the terminal."""

    facts: dict[str, str]  # texts, by label
    steps: int
    epochs: float
    needs: MemoryNeeds | None  # None if the configs of the base model cannot be read
    suggestions: tuple[str, ...]  # options that lower the peak, one after the other
    free: int = 0  # bytes of the device's memory
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = (f"{name:12}{words}" for name, words in self.facts.items() if words)
        facts = [line.replace("\n", "\n" + " " * 12) for line in lines]
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join([*facts, *notes, *(f"warning: {warning}" for warning in self.warnings)])

    def write(self, path: Path, timing: Timing | None) -> None:
        """Write the plan as JSON; sizes are in bytes, times in seconds. Raises `UserError`."""
        memory = {"peak": self.needs and self.needs.peak, "free": self.free}
        disk = self.needs and {"checkpoint": self.needs.checkpoint, "model": self.needs.model}
        seconds = timing and asdict(timing) | {"total": timing.total}
        about = {
            "facts": {name: words for name, words in self.facts.items() if words},
            "steps": self.steps,
            "epochs": round(self.epochs, 3),
            "learning": self.needs and self.needs.learning,
            "memory": memory,
            "disk": disk,
            "seconds": seconds,
            "suggestions": self.suggestions,
            "notes": self.notes,
            "warnings": self.warnings,
        }
        with replaced(path) as staged:
            staged.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def plan(
    config: Config,
    sizes: Sequence[tuple[int, int]],
    global_batch: int,
    processes: int,
    device: torch.device,
) -> Plan:
    """The plan of a run over pictures of these sizes (W, H), `global_batch` of them per step.

    Raises `UserError` when the disk has no room for two checkpoints and the model.
    """
    _, _, free = memory_of(device)
    pictures, facts = len(sizes), _facts(config, len(sizes), processes, device)
    try:
        base = BaseModel(config)
        several = base.pictures_per_step(config, sizes, global_batch)
        needs = base.needs(config, pictures, device.type, processes)
    except UnknownMemory as error:
        reason = f"the configs of the base model cannot be read ({error})"
        facts |= {"memory": f"unknown: {reason}", "output": config.output_dir}
        facts["steps"], steps, epochs = _steps(config, pictures, global_batch, global_batch)
        return Plan(facts, steps, epochs, None, (), free)

    def peak(kind: str, tried: Config) -> int:
        return base.needs(tried, pictures, kind, processes).peak

    facts["steps"], steps, epochs = _steps(config, pictures, global_batch, several)
    half = fastest_precision(device)
    suggestions = suggested(config, partial(peak, device.type), free, half)
    facts["size"] = f"{base.side(config)} px"
    facts["learns"] += f": {' + '.join(f'{n:,}' for n in needs.learning.values())} parameters"
    facts["memory"] = _listed(needs.memory)
    facts["at most"] = _listed(needs.peaks)
    facts["too much"] = _remarked("\n".join(suggestions))
    facts["cards"] = _remarked(cards(config, partial(peak, "cuda"))) if config.dry_run else ""
    facts["output"] = f"{config.output_dir}: {disk(config, needs, steps)}"
    return Plan(facts, steps, epochs, needs, suggestions, free)


def _facts(config: Config, pictures: int, processes: int, device: torch.device) -> dict[str, str]:
    """The facts that do not depend on the base model, and blanks for the others."""
    machine, total, free = memory_of(device)
    rows, passes = config.train_batch_size, config.gradient_accumulation_steps
    number = config.mixed_precision
    return {
        "base model": config.pretrained_model_name_or_path,
        "data": f"{config.data}, {pictures:,} pictures",
        "size": f"{config.resolution} px" if config.resolution else "the model's own",
        "learns": " and ".join(PARTS[: 1 + config.train_text_encoder]) + f" ({config.method})",
        "steps": "",
        "a step": f"{rows} x {_several(passes, 'pass')} x {_several(processes, 'process')}",
        "machine": f"{machine}, {size(free)} of {size(total)} free; precision {number}",
    }


def _steps(config: Config, pictures: int, limit: int, several: float) -> tuple[str, int, float]:
    """Steps and epochs of a run, in words and as numbers; a step has `several` pictures on average,
    and at most `limit`."""
    steps = config.total_steps(pictures, several)
    epochs = steps * several / pictures
    words = f"{limit}" if several == limit else f"{limit} (in small buckets fewer: {several:.1f})"
    return f"{steps:,} of {words} pictures: {epochs:.1f} epochs", steps, epochs


def _remarked(advice: str) -> str:
    """The advice, with a remark on an option that changes the result."""
    remark = f"\n{IN_BACKWARD}" if "--optimizer_in_backward" in advice else ""
    return advice + remark


def memory_of(device: torch.device) -> tuple[str, int, int]:
    """The name of a device; the total and free bytes of its memory."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return torch.cuda.get_device_name(device), total, free
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return "Apple GPU", total, total - torch.mps.driver_allocated_memory()
    memory = psutil.virtual_memory()
    return f"{os.cpu_count()} CPU cores", memory.total, memory.available


def disk(config: Config, needs: MemoryNeeds, steps: int) -> str:
    """The disk space needed, and what is free; a checkpoint is deleted once the next is safe.

    Raises `UserError` when not even two checkpoints and the model fit.
    """
    output = config.output.absolute()
    free = shutil.disk_usage(next(p for p in (output, *output.parents) if p.exists())).free
    old = (path for path in output.glob("checkpoint-*/**/*") if path.is_file())
    free += sum(path.stat().st_size for path in old)
    written = max(1, steps // config.checkpointing_steps)  # one is written before the first step
    staying = min(written, config.checkpoints_total_limit or written)
    best = bool(config.held_out or (config.validation_scorer and config.prompts))
    models = needs.model * (1 + best)
    if min(written, 2) * needs.checkpoint + models > free:
        raise UserError(
            f"{config.output_dir} has {size(free)} of disk free; the model takes {size(models)} "
            f"and each of {amount(min(written, 2), 'checkpoint')} {size(needs.checkpoint)}: make "
            "room, or choose another --output_dir."
        )
    parts = [f"{size(needs.checkpoint)} a checkpoint"]
    parts += [f"{size(staying * needs.checkpoint)} the {staying} that stay"] if staying > 1 else []
    parts += [f"{size(models)} the model" + " and the best one" * best]
    words = f"{', '.join(parts)}; {size(free)} free"
    if min(written, staying + 1) * needs.checkpoint + models > free:
        fit = int((free - models) // needs.checkpoint) - 1
        words += f"\nwarning: not all of that fits; add --checkpoints_total_limit {fit}"
    return words


def suggested(config: Config, peak: Callable, room: float, half: str) -> tuple[str, ...]:
    """Options that lower the peak to `room`, a line each, with the new peak."""
    steps = ladder(config, peak, room, half)
    lines: list[str] = []
    for (before, _), (after, after_peak) in pairwise(steps):
        word = "and" if lines and before.method == after.method else "or" if lines else "with"
        options = flags(after, before if word == "and" else config)
        lines.append(f"{size(after_peak):>8}  {word} {options}")
    if steps[-1][1] > room:
        lines.append(f"{size(room)} are not enough even so: lower --resolution")
    return tuple(lines)


def cards(config: Config, peak: Callable) -> str:
    """The options that fit the run on cards of typical sizes, a line each."""
    half = fastest_precision("cuda") if torch.cuda.is_available() else "bf16"  # most have it
    lines = []
    for card in CARDS:
        options, least = ladder(config, peak, card * 1e9, half)[-1]
        words = f"with {flags(options, config)}" if options != config else "as it is"
        lines.append(f"{card:>5} GB  {words if least <= card * 1e9 else 'too small for it'}")
        if words == "as it is" and least <= card * 1e9:
            break
    return "\n".join(lines)


def ladder(config: Config, peak: Callable, room: float, half: str) -> list[tuple[Config, int]]:
    """The options, then changed step by step until `peak` is within `room`; with their peaks.

    `half` is the precision to try: "bf16" or "fp16", or "no" if neither is fast. The cheapest
    change comes first; one that does not help is left out. LoRA starts again from the given
    options."""
    half = config.mixed_precision if config.mixed_precision in DTYPES else half
    lora = {"method": "lora", "mixed_precision": half}
    steps: list[tuple[Config, int]] = []
    for start in ({}, lora) if config.method != "lora" else ({},):
        current = config
        for options in (start, *_rungs(config, half)):
            try:
                tried = replace(current, **options)
                tried_peak = peak(tried)
            except (UserError, UnknownMemory):  # conflicting options, or no such layers
                continue
            if options is start or tried_peak < 0.99 * steps[-1][1]:
                current = tried
                steps.append((tried, tried_peak))
            if steps[-1][1] <= room:
                return steps
    return steps


def _rungs(config: Config, half: str) -> Iterator[dict]:
    rows, passes = config.train_batch_size, config.gradient_accumulation_steps
    yield {"mixed_precision": half}
    yield {"gradient_checkpointing": True, "gradient_checkpointing_blocks": "largest"}
    yield {"gradient_checkpointing": True, "gradient_checkpointing_blocks": "all"}
    for part in range(2, rows + 1):
        if rows % part == 0:
            smaller = {"train_batch_size": rows // part}
            yield smaller | {"gradient_accumulation_steps": passes * part}
    yield {"use_8bit_adam": True}
    yield {"offload_ema": True}
    if half != "fp16" and not torch.distributed.is_initialized():
        yield {"optimizer_in_backward": True}


def savings(config: Config, device: torch.device) -> Iterator[str]:
    """Options that save memory in this run, the cheapest first."""
    if config.mixed_precision == "no":
        fastest = fastest_precision(device)
        if fastest != "no":
            yield f"--mixed_precision {fastest}"
    if config.train_batch_size > 1:
        passes = config.gradient_accumulation_steps * config.train_batch_size
        yield f"--train_batch_size 1 --gradient_accumulation_steps {passes}"
    if not config.gradient_checkpointing:
        yield "--gradient_checkpointing"
    if config.optimizer_name == "adamw":
        yield "--use_8bit_adam"
    if config.use_ema and not config.offload_ema:
        yield "--offload_ema"
    if config.method == "full":
        yield "--method lora"
    yield "a smaller --resolution"


def _listed(counts: dict[str, int]) -> str:
    return "\n".join(f"{size(count):>8}  {name}" for name, count in counts.items())


def _several(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "es")
