"""Where results go: everything that could fail is tried before anything is drawn."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from core.errors import UserError
from core.files import replaced
from core.paths import is_folder

DRAWING = (  # options that say what is drawn, and how
    "model", "checkpoints", "lora_scale", "prompts", "keep_prompts", "images_per_prompt", "seed",
    "steps", "guidance_scale", "batch_size", "dtype", "save_images", "write_run",
)  # fmt: skip


def check_destinations(options: argparse.Namespace, usual: argparse.Namespace) -> None:
    """Raise a UserError for what could not be written after the pictures are drawn, and for options
    that mean nothing together."""
    if options.pictures:
        _refuse_drawing_options(options, usual)
    if options.write_run and not is_folder(options.model[0]):
        raise UserError(f"--write_run needs a model folder; '{options.model[0]}' is none.")
    if options.write_run and options.lora_scale:
        raise UserError("--write_run keeps the scores of a whole LoRA. Leave out --lora_scale.")
    places = {name: getattr(options, name) for name in ("output", "report")}
    places = {name: Path(place).resolve() for name, place in places.items() if place}
    if len({*places.values()}) < len(places):
        raise UserError("--output and --report are the same file. Give two names.")
    if options.write_run:
        places["write_run"] = Path(options.model[0]) / "run.json"
    for name, path in places.items():
        _rehearse(f"--{name} {path}", path)
    if options.save_images:
        _rehearse(f"--save_images {options.save_images}", Path(options.save_images, "picture.png"))


def _refuse_drawing_options(options: argparse.Namespace, usual: argparse.Namespace) -> None:
    """Raise a UserError for options of drawing beside --pictures, where nothing is drawn."""
    for name in DRAWING:
        if getattr(options, name) != getattr(usual, name):
            raise UserError(f"--pictures draws nothing: leave out --{name}.")


def _rehearse(what: str, path: Path) -> None:
    """Write a file beside `path` and delete it again; raise a UserError where that fails. Its name
    is its own: several processes rehearse at once."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_folder(path):
            raise UserError(f"{what} is a folder. Give a file name.")
        tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.").close()
    except OSError as error:
        raise UserError(f"{what} cannot be written: {error.strerror}. Choose another.") from error


def write_json(path: Path, content: dict) -> None:
    """Whole or not at all: run.json must survive an interruption."""
    try:
        text = json.dumps(content, indent=2, allow_nan=False)
    except ValueError as error:  # of an earlier content, which was not written here
        raise UserError(f"{path} holds numbers that are not finite. Mend or delete it.") from error
    with replaced(path) as staged:
        staged.write_text(text + "\n")
