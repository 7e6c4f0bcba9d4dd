"""Files of checkpoints: save, verify, find, load, prune. Tensors are safetensors, the rest JSON.

A checkpoint is a folder OUTPUT_DIR/checkpoint-STEP. It is written under a hidden name beside its
final one, flushed and renamed; only then are older ones removed. Its manifest holds the SHA-256 of
every file, so that a torn or altered checkpoint is detected and the one before it is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from core.bounded_json import read
from core.errors import UserError
from core.files import remove, remove_leftovers, replaced, vanish
from core.model_folder import finish
from core.run_folder import CHECKPOINT_STATE as STATE
from core.run_folder import checkpoints_in
from core.terminal import say
from training.sharding import Files, put, whole

MANIFEST = "manifest.json"
BEST = "best"  # the folder in OUTPUT_DIR of the best model
REHEARSAL = "checkpoint-rehearsal"  # has no step number: never resumed from
OPTIMIZER = "optimizer.safetensors"  # its moments


def save(
    folder: Path, files: Files, state: dict, describe: Callable[[Path], None] = lambda _: None
):
    """Write tensors and `state` (JSON) to `folder`; `describe` adds files about them."""
    with replaced(folder) as staged:
        staged.mkdir()
        for name, tensors in files.items():
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            save_tensors(tensors, staged / name)
        describe(staged)
        (staged / STATE).write_text(json.dumps(state, indent=2) + "\n")
        (staged / MANIFEST).write_text(json.dumps(_hashes(staged), indent=2))


def state_of(folder: Path) -> dict:
    """The JSON part of a checkpoint."""
    state = read(folder / STATE)
    if not isinstance(state, dict):
        raise UserError(f"{folder} is damaged ({STATE} is not readable); resume from another.")
    return state


@torch.no_grad()
def load(folder: Path, *layouts: Files) -> None:
    """Load a checkpoint in place, into the tensors of the first of `layouts` that it fits.

    Raises `UserError` if it is damaged or has other weights.
    """
    if reason := what_is_wrong(folder):
        raise UserError(f"{folder} is damaged ({reason}); resume from another, or start again.")
    misfits = [_misfit(folder, files) for files in layouts]
    if None not in misfits:
        raise UserError(
            f"{folder} cannot be resumed: {misfits[0]} has other weights than learn now. Use the "
            "same model and options, or start again in another --output_dir."
        )
    for name, tensors in layouts[misfits.index(None)].items():
        saved = load_file(folder / name) if tensors else {}
        for key, tensor in tensors.items():
            put(saved[key], tensor)


def _misfit(folder: Path, files: Files) -> str | None:
    """The first of `files` that the checkpoint lacks, or has with other names or shapes."""
    for name, tensors in files.items():
        if shapes_in(folder / name) != {key: list(value.shape) for key, value in tensors.items()}:
            return name
    return None


def shapes_in(path: Path) -> dict[str, list[int]]:
    """The shape of each tensor in a file; {} where there is no file."""
    if not path.exists():
        return {}
    with safe_open(path, "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118


def changes(then: dict, now: dict, pictures: tuple[int, int] | None = None) -> list[str]:
    """The differences between two sets of deciding facts, in words. `pictures`: their numbers then
    and now, where these differ."""
    counted = f"{pictures[0]:,} pictures then, {pictures[1]:,} now" if pictures else None
    digests = {  # whose values mean nothing to a user
        "the data": f"the data has changed ({counted or 'pictures or captions'})",
        "the base model": "the base model has other weights than it had",
    }
    return [
        digests.get(name, f"{name} was {then.get(name)}, now {now.get(name)}")
        for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)
    ]  # fmt: skip


def find(output: Path, wanted: str | None, say: Callable[[str], None] = say) -> Path | None:
    """The folder to resume from; None to start from scratch.

    A damaged checkpoint is skipped, with a warning, for an older whole one. Raises `UserError` if a
    named one is missing or damaged, if 'latest' finds none, or if two runs would be mixed.
    """
    found = list(reversed(checkpoints_in(output).values()))
    if wanted is None and found:
        raise UserError(
            f"{output} has checkpoints of an earlier run: go on with --resume_from_checkpoint "
            "latest, or delete them, or choose another --output_dir."
        )
    if wanted is None or (wanted == "auto" and not found):
        return None
    if wanted not in ("latest", "auto"):
        return _named(output, wanted, found)
    for folder in found:
        reason = what_is_wrong(folder)
        if reason is None:
            return folder
        say(f"{folder} is damaged ({reason}): looking for an older one.")
    if found:
        raise UserError(f"No checkpoint in {output} is whole. Start again in another --output_dir.")
    raise UserError(
        f"There is no checkpoint in {output} to resume from; leave --resume_from_checkpoint out "
        "to start, or use 'auto' for: resume if there is one."
    )


def _named(output: Path, wanted: str, found: list[Path]) -> Path:
    places = [place for place in (Path(wanted), output / wanted) if place.is_dir()]
    if not places:
        known = ", ".join(folder.name for folder in reversed(found)) or "none"
        raise UserError(f"There is no checkpoint {wanted}; {output} has: {known}.")
    if reason := what_is_wrong(places[0]):
        whole = next((folder.name for folder in found if what_is_wrong(folder) is None), None)
        advice = f"the newest whole one is {whole}" if whole else "no other is whole"
        raise UserError(f"{places[0]} is damaged ({reason}); {advice}.")
    return places[0]


def what_is_wrong(folder: Path) -> str | None:
    """How a checkpoint differs from what was written; None if it does not."""
    try:
        if not (written := _written(folder)):
            return f"{MANIFEST} is {'not readable' if written is None else 'empty'}"
        for name, about in written.items():
            size = (folder / name).stat().st_size
            if size != about["bytes"]:
                return f"{name} has {size:,} bytes of {about['bytes']:,}"
        present = _hashes(folder, written)
    except OSError as error:
        missing = Path(error.filename or "").name
        return f"{missing} is missing" if isinstance(error, FileNotFoundError) else str(error)
    altered = [name for name, about in written.items() if present[name] != about]
    return f"{altered[0]} is not as it was written" if altered else None


def _written(folder: Path) -> dict[str, dict] | None:
    """Size and hash of each file by the manifest; None if that cannot be read."""
    try:
        written = read(folder / MANIFEST)
        if not isinstance(written, dict):
            return None
        return {name: {"bytes": int(about["bytes"]), "sha256": about["sha256"]}
                for name, about in written.items()}  # fmt: skip
    except (ValueError, KeyError, TypeError):
        return None


def clear_leftovers(output: Path) -> None:
    """Complete or undo what a killed run left unfinished in OUTPUT_DIR, which is locked."""
    for folder in (output, output / BEST):
        finish(folder)
        remove_leftovers(folder, alone=True)
    remove(output / REHEARSAL)


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def prune(output: Path, limit: int | None) -> None:
    """Delete the oldest checkpoints beyond `limit`; to be called once a new one is safe."""
    if limit is not None:
        for folder in list(checkpoints_in(output).values())[:-limit]:
            vanish(folder)


def fingerprint_of(*modules: torch.nn.Module) -> str:
    """A fingerprint of the weights of modules: 16 hexadecimal digits."""

    def digest(tensor: torch.Tensor) -> bytes:
        plain = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
        return hashlib.sha256(plain.numpy()).digest()

    tensors = [item for module in modules for item in module.state_dict().items()]
    with ThreadPoolExecutor() as pool:
        digests = pool.map(digest, [tensor for _, tensor in tensors])
    whole = hashlib.sha256()
    for (name, _), each in zip(tensors, digests, strict=True):
        whole.update(name.encode() + each)
    return whole.hexdigest()[:16]


def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: whole(tensor) for name, tensor in tensors.items()}, path)


def _hashes(folder: Path, names=None) -> dict[str, dict]:
    """Size and SHA-256 of the files of a folder, or of those that are named."""
    if names is None:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(folder).as_posix() for path in paths]

    def about(name: str) -> dict:
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"bytes": file.tell(), "sha256": digest}

    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(about, names), strict=True))
