"""Optional modules: packages that are not installed, parts of the project that were deleted."""

from importlib import import_module
from types import ModuleType


def module_if_here(name: str) -> ModuleType | None:
    """Import a module by name; None if it, or a package that contains it, does not exist.

    Errors within the module are raised.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            return None
        raise
