"""Numbers as they stand in tables, in sentences and in JSON."""

from __future__ import annotations

from evaluation.mmd import Distance


def number(value: float | None, sign: str = "") -> str:
    """Two digits after the point; "failed" where there is none."""
    if value is None:
        return "failed"
    return f"{round(value, 2) + 0.0:{sign}.2f}"  # + 0.0: no "-0.00"


def signed(value: float) -> str:
    return number(value, "+")


def if_known(value: float | None) -> str:
    """Empty where nothing was measured."""
    return "" if value is None else number(value)


def distance_with_interval(distance: Distance | None) -> str:
    """Likewise."""
    if distance is None:
        return ""
    return f"{distance.value:.3f} ({distance.interval[0]:.3f} to {distance.interval[1]:.3f})"


def interval_as_json(distance: Distance) -> dict:
    return {"value": distance.value, "interval_95": distance.interval}
