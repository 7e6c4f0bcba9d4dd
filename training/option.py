"""An option of a command: its default, help and allowed values; and options as typed in a shell."""

from __future__ import annotations

import argparse
import math
import shlex
from dataclasses import Field, field, fields
from typing import TYPE_CHECKING, Any, get_args

from core.errors import UserError

if TYPE_CHECKING:
    from training.config import Config

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
    """A dataclass field for an option: its default, its line in `--help`, its allowed values.

    `bounds`: `least` and `most` are inclusive; `above` and `below` are not. A `free` option may
    change when a run is resumed, since it concerns only the rest of the run. A `later` option was
    added when there were checkpoints already: a checkpoint without it was made with its default.
    """
    settings = {"help": help, "choices": choices, "free": free, "later": later, "bounds": bounds}
    return field(default=default, metadata=settings)


def idle(default: Any, reason: str) -> Any:
    """An option of other scripts' commands that is accepted and changes nothing."""
    settings = {"help": f"accepted, changes nothing: {reason}", "choices": (), "bounds": {}}
    return field(default=default, metadata=settings | {"free": True, "later": True, "idle": reason})


def argument(each: Field) -> dict:
    """The keyword arguments of `add_argument` for an option."""
    unsaid = each.default is False or each.default in (None, "", ())
    default = "" if unsaid else f" (default: {each.default})"
    settings = {
        "default": each.default,
        "help": (each.metadata["help"] + default).replace("%", "%%"),
    }
    if each.type is bool:
        return settings | {"action": "store_true"}
    settings["type"] = _parser(each)
    if each.type == tuple[str, ...]:
        return settings | {"nargs": "+", "action": _Several, "metavar": each.name[:-1].upper()}
    if choices := [choice for choice in each.metadata["choices"] if choice is not None]:
        settings["choices"] = choices
    else:
        settings["metavar"] = each.name.rsplit("_", 1)[-1].upper()
    return settings


def _parser(each: Field) -> Any:
    """The type that parses a value: that of the field, without None."""
    return next((kind for kind in get_args(each.type) if kind not in (type(None), ...)), each.type)


class _Several(argparse.Action):
    """Stores several values as a tuple, which a frozen dataclass needs."""

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


def flags(config: Config, other: Config | None = None) -> str:
    """The options that differ from those of `other`, or from the defaults, as typed in a shell;
    without the hub token, which is secret."""
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
