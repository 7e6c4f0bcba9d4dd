"""Options as they are typed in a shell."""

from __future__ import annotations

import shlex
from dataclasses import fields


def flags(config, other=None) -> str:
    """The options of a run that differ from those of `other`, or from what they are if unset; not
    the token of the hub, which is no word for a terminal or a log."""
    words = []
    for each in fields(config):
        value = getattr(config, each.name)
        if each.name == "hub_token" or value == (
            getattr(other, each.name) if other else each.default
        ):
            continue
        words.append(f"--{each.name}")
        if value is not True:
            words += map(str, value if isinstance(value, tuple) else (value,))
    return shlex.join(words)
