"""A bound on what comes from outside, as the tables of docs/limits.md state it."""

from __future__ import annotations

from typing import NamedTuple


class Limit(NamedTuple):
    """A bound, and what becomes of what is beyond it."""

    what: str
    maximum: int
    unit: str
    beyond: str
