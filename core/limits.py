"""The type of a limit on untrusted input, as the tables of docs/limits.md list them."""

from __future__ import annotations

from typing import NamedTuple


class Limit(NamedTuple):
    """A limit, and what happens to input beyond it."""

    what: str
    maximum: int
    unit: str
    beyond: str
