"""The folder of a training run: its checkpoints, the lines of its log, the base that it names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeGuard

from core.bounded_json import JSONFault, loads
from core.paths import ROOT, is_there

FILE = "log.jsonl"
CHECKPOINT = re.compile(r"checkpoint-(\d+)", re.ASCII)


def checkpoints_in(folder: str | Path) -> dict[int, Path]:
    """Folders checkpoint-STEP of a run by their step, in the order of the steps."""
    named = ((CHECKPOINT.fullmatch(path.name), path) for path in Path(folder).glob("checkpoint-*"))
    return dict(sorted((int(match[1]), path) for match, path in named if match and path.is_dir()))


def base_of_run(run: dict) -> str | None:
    """The base model that a run.json names: a path from here or from the project's folder, or else
    the hub's name of it. None where it names none."""
    named = run.get("base_model")
    if not named:
        return None
    return next((str(path) for path in (Path(named), ROOT / named) if is_there(path)), named)


def records_in(lines: Iterable[str]) -> list[dict]:
    """Those that are whole, by step.

    Where a resumed run repeated a step, its later line counts; a line that was cut off when a run
    was killed is left out.
    """
    found = {}
    for line in lines:
        try:
            record = loads(line)
        except JSONFault:
            continue
        if _is_record(record):
            found[record["step"], "loss" not in record] = record
    return [found[key] for key in sorted(found)]


def of_run(records: Iterable[dict], manifest: dict) -> list[dict]:
    """Those of the manifest's own run up to its last step: a folder may have seen others before."""
    run_id, end = manifest.get("run_id"), manifest.get("steps", math.inf)
    return [r for r in records if r.get("run_id", run_id) == run_id and r["step"] <= end]


def _is_record(value: object) -> TypeGuard[dict]:
    """Whether it is a line as a run logs it, whoever wrote it."""
    if not isinstance(value, dict) or not isinstance(value.get("step"), int):
        return False
    epoch = value.get("epoch", 0.0)
    return abs(value["step"]) < 2**53 and isinstance(epoch, int | float)
