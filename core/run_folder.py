"""Contents of a training run's folder: checkpoints, log records, the base model it names."""

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
CHECKPOINT_STATE = "state.json"  # the part of a checkpoint that is JSON
HARDEST = "hardest.json"  # the pictures that were learned worst, with thumbnails
# Of a run's folder; whoever takes the model gets it without intermediate states, without logs, and
# without what is known of the processes that made it. Patterns of `fnmatch`.
NOT_UPLOADED = [
    "checkpoint-*",
    "checkpoint-*/**",
    "class/**",
    "validation/*/*",  # what a verdict along the way was drawn from
    "best/**",
    "logs/**",
    ".*",
    "*.jsonl",
    "*.log",
    "teach.json",
    "process.json",
    "scoring.json",
    "stop.json",
    HARDEST,
]


def checkpoints_in(folder: str | Path) -> dict[int, Path]:
    """The checkpoint-STEP folders of a run by step, in ascending order."""
    named = ((CHECKPOINT.fullmatch(path.name), path) for path in Path(folder).glob("checkpoint-*"))
    return dict(sorted((int(match[1]), path) for match, path in named if match and path.is_dir()))


def base_of_run(run: dict) -> str | None:
    """The base model named by run.json: a path relative to the working directory or the project,
    or else a hub id. None if it names none."""
    named = run.get("base_model")
    if not named:
        return None
    return next((str(path) for path in (Path(named), ROOT / named) if is_there(path)), named)


def records_in(lines: Iterable[str]) -> list[dict]:
    """Valid records of log.jsonl, sorted by step.

    The later record of a step that a resumed run repeated wins; a line cut off by a kill is
    skipped.
    """
    latest = {}
    for line in lines:
        try:
            record = loads(line)
        except JSONFault:
            continue
        if is_record(record):
            latest[record["step"], "loss" not in record] = record
    return [latest[key] for key in sorted(latest)]


def of_run(records: Iterable[dict], manifest: dict) -> list[dict]:
    """Records of the manifest's own run, up to its last step; a folder may hold earlier runs."""
    run_id, end = manifest.get("run_id"), manifest.get("steps", math.inf)
    return [r for r in records if r.get("run_id", run_id) == run_id and r["step"] <= end]


def is_record(value: object) -> TypeGuard[dict]:
    """Whether a value is a log record with numbers in range."""
    if not isinstance(value, dict) or not isinstance(value.get("step"), int):
        return False
    epoch = value.get("epoch", 0.0)
    return abs(value["step"]) < 2**53 and isinstance(epoch, int | float)
