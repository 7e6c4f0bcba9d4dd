"""One option of a command: its default, its line of help, the values that it may have."""

import argparse
import math
import shlex
from dataclasses import Field, field, fields
from typing import Any, get_args

from core.errors import UserError

RULES = {
    "least": ("at least", lambda value, bound: value >= bound),
    "above": ("above", lambda value, bound: value > bound),
    "most": ("at most", lambda value, bound: value <= bound),
    "below": ("below", lambda value, bound: value < bound),
}


def option(
    default: Any,
    help: str,
    choices: tuple = (),
    *,
    free: bool = False,
    later: bool = False,
    **bounds: float,
) -> Any:
    """A field of a dataclass of options: its default, the line `--help` prints and what values are
    allowed.

    `bounds`: `least` and `most` are inclusive; `above` and `below` are not. A `free` option may
    change when a run goes on from a checkpoint: it concerns the rest of the run alone. A `later`
    one was added when there were checkpoints already: they lack it, which is to leave it out.
    """
    told = {"help": help, "choices": choices, "free": free, "later": later, "bounds": bounds}
    return field(default=default, metadata=told)


def idle(default: Any, reason: str) -> Any:
    """An option that commands for other scripts have, and that changes nothing here."""
    told = {"help": f"accepted, changes nothing: {reason}", "choices": (), "bounds": {}}
    return field(default=default, metadata=told | {"free": True, "later": True, "idle": reason})


def argument(each: Field) -> dict:
    """What `add_argument` needs to know of an option."""
    unsaid = each.default is False or each.default in (None, "", ())
    default = "" if unsaid else f" (default: {each.default})"
    told = {
        "default": each.default,
        "help": (each.metadata["help"] + default).replace("%", "%%"),
    }
    if each.type is bool:
        return told | {"action": "store_true"}
    told["type"] = _kind(each)
    if each.type == tuple[str, ...]:
        return told | {"nargs": "+", "action": _Several, "metavar": each.name[:-1].upper()}
    if choices := [choice for choice in each.metadata["choices"] if choice is not None]:
        told["choices"] = choices
    else:
        told["metavar"] = each.name.rsplit("_", 1)[-1].upper()
    return told


def _kind(each: Field) -> type:
    """The type that a value is parsed with: that of the field, less None."""
    return next((kind for kind in get_args(each.type) if kind not in (type(None), ...)), each.type)


class _Several(argparse.Action):
    """Keeps several values as a tuple, as a frozen dataclass should hold them."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, tuple(values))


def check(each: Field, value: Any) -> None:
    """Raise `UserError` unless `value` is allowed for the option."""
    choices, bounds = each.metadata["choices"], each.metadata["bounds"]
    if choices and value not in choices:
        known = ", ".join(str(choice) for choice in choices if choice is not None)
        raise UserError(f"--{each.name} is {value!r}; choose one of: {known}.")
    if value is None or not isinstance(value, int | float):
        return
    for name, bound in bounds.items():
        words, holds = RULES[name]
        if not (math.isfinite(value) and holds(value, bound)):
            raise UserError(f"--{each.name} is {value}; it must be {words} {bound}.")


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
