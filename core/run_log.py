"""The lines of log.jsonl: what a run said of its steps, and of each look along the way."""

from __future__ import annotations

import math
from collections.abc import Iterable

from core.bounded_json import JSONFault, loads

FILE = "log.jsonl"


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


def _is_record(value: object) -> bool:
    """Whether it is a line as a run logs it, whoever wrote it."""
    if not isinstance(value, dict) or not isinstance(value.get("step"), int):
        return False
    epoch = value.get("epoch", 0.0)
    return abs(value["step"]) < 2**53 and isinstance(epoch, int | float)
