"""Checks of a model folder before a library opens it: its files, and the size it draws."""

from __future__ import annotations

from pathlib import Path

from core.bounded_json import FILE_BYTES, JSONFault, check_bounds, read
from core.errors import UserError
from core.paths import fault_of, is_folder, read_bytes, special_kind

SIDES = (8, 8192)  # pixels: the least and the most a model may draw


def check_files(model: str | Path) -> None:
    """Raise `UserError` for files that hang or crash libraries: special files, and JSON beyond the
    limits. Passes what is not a local folder.
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
        raise UserError(f"{path} {fault}; fix it or give another folder.") from error


def picture_side(unet: object, vae: object) -> int | None:
    """Native resolution of a model in pixels, from the configs of its parts; None if they do not
    tell."""
    if not isinstance(unet, dict) or not isinstance(vae, dict):
        return None
    latents, blocks = unet.get("sample_size"), vae.get("block_out_channels")
    if type(latents) is not int or not 0 < latents <= SIDES[1]:
        return None
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= 20:
        return None
    side = latents * 2 ** (len(blocks) - 1)
    return side if SIDES[0] <= side <= SIDES[1] else None


def resolution_of(model: str, revision: str | None = None) -> int | None:
    """Native resolution in pixels of a model folder or hub id; None if its configs are missing or
    do not tell."""
    try:
        return picture_side(*(_config(model, part, revision) for part in ("unet", "vae")))
    except (OSError, ValueError):
        return None


def _config(model: str, part: str, revision: str | None) -> object:
    """The config of a part of a model, local or on the hub."""
    from huggingface_hub import hf_hub_download

    path = Path(model) / part / "config.json"
    if not is_folder(model):
        path = hf_hub_download(model, "config.json", subfolder=part, revision=revision)
    return read(path)
