"""What a model folder says was measured: the scores in run.json, the curves in log.jsonl.

Anybody may have written these files, so nothing is taken for granted: a value of another type than
expected is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from core.errors import UserError
from core.paths import read_own
from core.run_folder import FILE, of_run, records_in
from sampling.model_info import read_run
from sampling.variants import spread
from webapp.report_routes import reports_in

MAX_NUMBER, MIN_NUMBER = 1e9, 1e-9  # of a score; what is smaller is 0
MAX_PROMPT_SETS = 8  # of one model
CURVES = ("clip_score", "held_out_loss", "kept_score")
MAX_LOG_BYTES = 64 * 2**20
MAX_POINTS = 200  # of a curve


class RunFile:
    """The run.json of a model folder, read again when it has changed."""

    def __init__(self, run: dict, folder: Path | None):
        """`run`: what it holds by now; without a folder it never changes."""
        self.run, self._folder = run, folder
        self._version = self._current_version()

    def refresh(self) -> bool:
        """Whether the file, or which reports are beside it, has changed since the last call.

        One that cannot be read leaves `run` as it was; the log says why.
        """
        version = self._current_version()
        if version == self._version or self._folder is None:
            return False
        try:
            self.run = read_run(str(self._folder))
        except UserError as error:
            logging.getLogger(__name__).warning("%s", error)
        self._version = version
        return True

    def _current_version(self) -> tuple:
        """metrics.py replaces the file by a new one, so it has another inode, too."""
        reports = reports_in(self._folder)
        try:
            found = Path(self._folder or "", "run.json").stat() if self._folder else None
        except OSError:
            found = None
        return (found and (found.st_mtime_ns, found.st_ino, found.st_size), reports)


def scores_of(run: dict) -> dict[str, dict]:
    """The scores in a run.json by the name of their prompts; at most MAX_PROMPT_SETS."""
    known = (run.get("scores") or {}).items()
    found = {name: entry for name, entry in known if number(entry, "clip_score") is not None}
    return dict([*found.items()][-MAX_PROMPT_SETS:])


def number(entry: object, *path: str) -> float | None:
    """The finite number at a path of keys."""
    found = _at(entry, path)
    # NaN is not below anything, and a whole number may be too large for a float.
    if not isinstance(found, int | float) or isinstance(found, bool) or not abs(found) < MAX_NUMBER:
        return None
    return float(found) if abs(found) > MIN_NUMBER else 0.0


def interval(entry: object, *path: str) -> tuple[float, float] | None:
    """The two finite numbers at a path of keys."""
    found = _at(entry, path)
    if not isinstance(found, list) or len(found) != 2:
        return None
    low, high = (number({"": each}, "") for each in found)
    return None if low is None or high is None else (low, high)


def share(entry: object, *path: str) -> tuple[int, int] | None:
    """How many of how many images: the number at a path of keys, and "pictures" beside it."""
    hits, images = number(entry, *path), number(entry, *path[:-1], "pictures")
    return None if hits is None or images is None else (int(hits), int(images))


def sentences(entry: dict, limit: int) -> list[str]:
    """The verdict."""
    told = entry.get("verdict")
    if not isinstance(told, list):
        return []
    return [each for each in told if isinstance(each, str)][:limit]


def text(entry: object, *path: str) -> str:
    """The text at a path of keys; "" where there is none."""
    found = _at(entry, path)
    return found if isinstance(found, str) else ""


def curves_of(folder: Path | None, run: dict) -> dict[str, list[tuple[int, float]]]:
    """Scores over the steps of a run, (step, value), by their names in log.jsonl; those with two
    points or more."""
    try:
        log = read_own(folder, FILE, MAX_LOG_BYTES).decode(errors="replace") if folder else ""
    except OSError:  # the page is complete without it
        return {}
    # Most lines are of training steps and hold none of these.
    lines = [line for line in log.split("\n") if any(f'"{name}"' in line for name in CURVES)]
    records = [record for record in of_run(records_in(lines), run) if record["step"] >= 0]
    curves = {name: spread([*_points(records, name)], MAX_POINTS) for name in CURVES}
    return {name: points for name, points in curves.items() if len(points) > 1}


def best_step(run: dict) -> int | None:
    """The step of the best checkpoint."""
    step = number(run, "best", "step")
    return None if step is None else int(step)


def _points(records: list[dict], name: str) -> Iterator[tuple[int, float]]:
    for record in records:
        if (value := number(record, name)) is not None:
            yield record["step"], value


def _at(entry: object, path: tuple[str, ...]) -> object:
    for key in path:
        entry = entry.get(key) if isinstance(entry, dict) else None
    return entry
