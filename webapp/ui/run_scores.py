"""What run.json says was measured: numbers, shares and intervals, whoever wrote them."""

from __future__ import annotations

MOST, LEAST = 1e9, 1e-9  # of a number that was measured; below, it is nothing
MAX_SETS = 8  # of prompts, of one model


def measured(run: dict) -> dict[str, dict]:
    """By their prompts' name the scores in a run.json; at most MAX_SETS."""
    known = (run.get("scores") or {}).items()
    found = {name: entry for name, entry in known if number(entry, "clip_score") is not None}
    return dict([*found.items()][-MAX_SETS:])


def number(entry: object, *names: str) -> float | None:
    """What stands under these names, one within the other; None where it is no finite number."""
    found = _under(entry, names)
    # NaN is not below anything, and a whole number may be too large for a float.
    if not isinstance(found, int | float) or isinstance(found, bool) or not abs(found) < MOST:
        return None
    return float(found) if abs(found) > LEAST else 0.0


def interval(entry: object, *names: str) -> tuple[float, float] | None:
    """Likewise: a list of two numbers."""
    found = _under(entry, names)
    if not isinstance(found, list) or len(found) != 2:
        return None
    low, high = (number({"": each}, "") for each in found)
    return None if low is None or high is None else (low, high)


def share(entry: object, name: str, hits: str) -> tuple[int, int] | None:
    """How many of how many pictures."""
    found = number(entry, name, hits), number(entry, name, "pictures")
    return None if None in found else (int(found[0]), int(found[1]))


def sentences(entry: dict, most: int) -> list[str]:
    """Its verdict."""
    told = entry.get("verdict")
    return [each for each in told if isinstance(each, str)][:most] if isinstance(told, list) else []


def text(entry: object, *names: str) -> str:
    """A text under these names; "" where there is none."""
    found = _under(entry, names)
    return found if isinstance(found, str) else ""


def _under(entry: object, names: tuple[str, ...]) -> object:
    for each in names:
        entry = entry.get(each) if isinstance(entry, dict) else None
    return entry
