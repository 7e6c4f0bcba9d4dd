"""Folders of models that write captions of pictures: which can be used, without opening one."""

from __future__ import annotations

from pathlib import Path

from core.bounded_json import JSONFault, read
from core.errors import UserError
from core.model_check import check_files
from core.paths import is_folder

KINDS = ("blip", "florence2")  # as `model_type` of config.json calls them


def captioner_of(folder: str | Path) -> Path:
    """The folder, whole; raises `UserError` where no captioner of a known kind is in it."""
    path = Path(folder).expanduser().resolve()
    if not is_folder(path):
        raise UserError(f"--captioner: there is no folder {folder}; check the path.")
    check_files(path)
    if kind_of(path) not in KINDS:
        raise UserError(
            f"--captioner: {folder} is no model of BLIP or Florence-2 that transformers opens; its "
            f"config.json names {' or '.join(KINDS)} as model_type."
        )
    if not any(path.glob("*.safetensors")):
        raise UserError(f"--captioner: {folder} has no weights as .safetensors; save them so.")
    return path


def kind_of(folder: Path) -> str:
    try:
        config = read(folder / "config.json")
    except (OSError, JSONFault):
        return ""
    return str(config.get("model_type")) if isinstance(config, dict) else ""
