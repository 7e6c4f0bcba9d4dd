"""A folder of a model, or of a table, as it lies there, before a library opens it."""

from __future__ import annotations

from pathlib import Path

from core.bounded_json import FILE_BYTES, JSONFault, check_bounds
from core.inputs import fault_of, read_bytes, special_kind
from errors import UserError

SIDES = (8, 8192)  # pixels of what a model can draw


def check_files(model: str | Path) -> None:
    """Refuse a folder with files on which libraries wait for ever or break down: what is no file,
    and JSON beyond the bounds. What is no folder here passes.

    Raises `UserError`.
    """
    folder = Path(model)
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        if kind := special_kind(path):
            raise UserError(f"{path} is no file but {kind}; delete it or give another folder.")
        if path.suffix == ".json" and path.is_file():
            _check_json(path)


def _check_json(path: Path) -> None:
    try:
        check_bounds(read_bytes(path, FILE_BYTES).decode(errors="replace"))
    except (OSError, JSONFault) as error:
        fault = fault_of(error) if isinstance(error, OSError) else error
        raise UserError(f"{path} {fault}; mend it or give another folder.") from error


def picture_side(unet: object, vae: object) -> int | None:
    """Pixels a side of what a model draws, by the configs of its parts; None where they do not
    say."""
    try:
        side = unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1)
    except (LookupError, TypeError, ArithmeticError):
        return None
    return side if isinstance(side, int) and SIDES[0] <= side <= SIDES[1] else None
