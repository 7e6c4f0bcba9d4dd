"""Save, find, resume, prune. No pickles: tensors are safetensors, the rest is JSON."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from errors import UserError


class Checkpoints:
    """The checkpoints of a run, OUTPUT_DIR/checkpoint-STEP: how it goes on after a stop.

    `same` holds what must not change between a checkpoint and the run that goes on from it.
    """

    def __init__(self, learner, optimizer: torch.optim.Optimizer, config, run, same: dict):
        self.learner, self.optimizer = learner, optimizer
        self.config, self.run, self.same = config, run, same

    def resume(self) -> int:
        """Put the checkpoint that the options ask for back; the step to go on with."""
        folder = find(self.config.output, self.config.resume_from_checkpoint)
        if folder is None:
            return 0
        state = load(folder, self.learner, self.optimizer, self.same)
        self.run.id = state["run_id"]
        if self.run.accelerator.scaler:
            self.run.accelerator.scaler.load_state_dict(state["scaler"])
        self.run.say(f"Resuming from {folder}, after step {state['step']}.")
        return state["step"]

    def save(self, step: int) -> None:
        """Write checkpoint-STEP; only then delete those beyond --checkpoints_total_limit."""
        if self.run.is_main:
            scaler = self.run.accelerator.scaler
            state = {"step": step, "run_id": self.run.id, **self.same}
            state["scaler"] = scaler.state_dict() if scaler else None
            save(self.config.output / f"checkpoint-{step}", self.learner, self.optimizer, state)
            prune(self.config.output, self.config.checkpoints_total_limit)
        self.run.accelerator.wait_for_everyone()


def save(folder: Path, learner, optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Write weights, their average, the optimizer and `state` (JSON) to `folder`."""
    names = list(learner.weights)
    moments = {
        f"{names[index]}/{key}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }
    with replaced(folder) as staged:
        staged.mkdir()
        _save_tensors(learner.weights, staged / "weights.safetensors")
        _save_tensors(moments, staged / "optimizer.safetensors")
        if learner.ema:
            _save_tensors(learner.ema.shadow, staged / "ema.safetensors")
        (staged / "state.json").write_text(json.dumps(state, indent=2))


@torch.no_grad()
def load(folder: Path, learner, optimizer: torch.optim.Optimizer, expected: dict) -> dict:
    """Put a checkpoint back and return its state.

    `expected` are entries of the state that must be the same now, or the run would not be the same.
    Raises `UserError` if one differs, or if the checkpoint is damaged or of another model.
    """
    try:
        state = json.loads((folder / "state.json").read_text())
        for name, now in expected.items():
            if state.get(name, now) != now:
                raise UserError(
                    f"{folder} was made with {name} {state[name]}, this run has {now}: "
                    "use the same options and data, or leave --resume_from_checkpoint out."
                )
        _copy(load_file(folder / "weights.safetensors"), learner.weights)
        if learner.ema:
            _copy(load_file(folder / "ema.safetensors"), learner.ema.shadow)
        moments = load_file(folder / "optimizer.safetensors")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{folder} is not a whole checkpoint of this run ({type(error).__name__}: {error}); "
            "resume from another, or leave --resume_from_checkpoint out."
        ) from error
    entries = [{} for _ in learner.weights]
    places = {name: index for index, name in enumerate(learner.weights)}
    for name, value in moments.items():
        weight, key = name.rsplit("/", 1)
        entries[places[weight]][key] = value
    groups = optimizer.state_dict()["param_groups"]  # today's options, not those of the checkpoint
    optimizer.load_state_dict({"state": dict(enumerate(entries)), "param_groups": groups})
    return state


def find(output: Path, wanted: str | None) -> Path | None:
    """The folder to resume from; None to start afresh.

    Raises `UserError` if a named one is missing, or if starting afresh would mix two runs.
    """
    if wanted is None:
        if _all(output):
            raise UserError(
                f"{output} has checkpoints of an earlier run: go on with --resume_from_checkpoint "
                "latest, or delete them, or choose another --output_dir."
            )
        return None
    if wanted == "latest":
        return max(_all(output), key=_step, default=None)
    for folder in (Path(wanted), output / wanted):
        if folder.is_dir():
            return folder
    known = ", ".join(folder.name for folder in sorted(_all(output), key=_step)) or "none"
    raise UserError(f"There is no checkpoint {wanted}; {output} has: {known}.")


def prune(output: Path, limit: int | None) -> None:
    """Delete the oldest checkpoints beyond `limit`. Call it after a new one is safe."""
    if limit is not None:
        for folder in sorted(_all(output), key=_step)[:-limit]:
            shutil.rmtree(folder)


def _all(output: Path) -> list[Path]:
    return [folder for folder in output.glob("checkpoint-*") if folder.name[11:].isdigit()]


def _step(folder: Path) -> int:
    return int(folder.name[11:])


def _save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def _copy(saved: dict[str, torch.Tensor], live: dict[str, torch.Tensor]) -> None:
    if {name: value.shape for name, value in saved.items()} != {
        name: value.shape for name, value in live.items()
    }:
        raise ValueError("other weights learned")
    for name, tensor in live.items():
        tensor.data.copy_(saved[name])


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to; once written it is flushed and takes its place."""
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        yield staged
        _flush(staged)
        if target.is_dir():
            shutil.rmtree(target)
        staged.rename(target)
        _flush(target.parent, deep=False)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{target} cannot be written: {error}. Make room and resume.") from error
    finally:
        _remove(staged)


@contextmanager
def replaced_files(folder: Path, last: str) -> Iterator[Path]:
    """A folder to write to; once written, its entries replace those of `folder`, others stay.

    `last` leaves first and comes last: a folder caught between does not open, rather than mix two.
    """
    staged, former = (folder / f".{name}.{os.getpid()}" for name in ("new", "former"))
    staged.mkdir(parents=True)
    try:
        yield staged
        _flush(staged)
        former.mkdir()
        names = [last, *sorted(path.name for path in staged.iterdir() if path.name != last)]
        for name in names:
            if (folder / name).exists():
                (folder / name).rename(former / name)
        for name in reversed(names):
            (staged / name).rename(folder / name)
        _flush(folder, deep=False)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder} cannot be written: {error}. Make room and resume.") from error
    finally:
        _remove(staged)
        _remove(former)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path, deep: bool = True) -> None:
    """Make a file or a folder with its content survive a power cut."""
    for each in [path, *(path.rglob("*") if deep else ())]:
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
