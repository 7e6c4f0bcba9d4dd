"""How scores went along a run, as its log.jsonl has them: points by step."""

from __future__ import annotations

from pathlib import Path

from core.paths import read_own
from core.run_folder import FILE, of_run, records_in
from sampling.variants import spread
from webapp.ui.run_scores import number

NAMES = ("clip_score", "held_out_loss", "kept_score")
MAX_BYTES = 64 * 2**20  # of a log
MAX_POINTS = 200  # of a curve


def course_of(folder: Path | None, run: dict) -> dict[str, list[tuple[int, float]]]:
    """By name what was measured at two steps or more; nothing where there is no log."""
    try:
        text = read_own(folder, FILE, MAX_BYTES).decode(errors="replace") if folder else ""
    except OSError:  # it is for people to look at: without it the page is whole
        return {}
    # Most lines are of training steps and hold none of this.
    lines = [line for line in text.split("\n") if any(f'"{name}"' in line for name in NAMES)]
    looks = [look for look in of_run(records_in(lines), run) if look["step"] >= 0]
    curves = {name: _points(looks, name) for name in NAMES}
    return {name: points for name, points in curves.items() if len(points) > 1}


def best_step(run: dict) -> int | None:
    """The step whose weights were kept as the best."""
    step = number(run, "best", "step")
    return None if step is None else int(step)


def _points(looks: list[dict], name: str) -> list[tuple[int, float]]:
    known = [(look["step"], value) for look in looks if (value := number(look, name)) is not None]
    return spread(known, MAX_POINTS)
