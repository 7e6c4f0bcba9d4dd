"""Modules that may be missing: parts of the project that were deleted, packages not installed."""

from importlib import import_module
from types import ModuleType


def module_if_here(name: str) -> ModuleType | None:
    """A module by its name, or None where it, or a package that it is in, is not there.

    Whatever goes wrong within it is an error as anywhere.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            return None
        raise
