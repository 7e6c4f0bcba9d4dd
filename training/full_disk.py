"""Protection against a disk that fills up: space reserved from the first step on, and other places
to save what was learned if OUTPUT_DIR has no room for it all the same."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from core.disk import ReservedSpace
from core.errors import UserError
from core.files import NotWritable
from core.formatting import size
from training.sharding import Files

if TYPE_CHECKING:
    from training.checkpoints import Checkpoints

ROUNDING = 2**20  # bytes: files take whole blocks, and folders take some too
SECONDS_BETWEEN_TRIES, SECONDS_OF_WAITING = 10, 15 * 60


class DiskReserve:
    """Reserves the disk space of a checkpoint and the model before the first step, so that a disk
    that others fill meanwhile does not cost the training.

    The reserve is an unnamed file, which disappears with the process, however that ends.
    """

    def __init__(self, output: Path):
        self.output = output
        self.checkpoint, self.model = 0, 0  # bytes
        self._reserve: ReservedSpace | None = None

    def take(self, checkpoint: int, model: int) -> None:
        """Reserve so many bytes. Raises `UserError` where there is no room for the model."""
        self.checkpoint, self.model = checkpoint, model
        try:
            self._reserve = ReservedSpace(self.output)
            self._reserve.hold(model)
        except OSError as error:
            raise UserError(
                f"{self.output} has no room for the model, which takes {size(model)} "
                f"({error.strerror}): make room, or choose another --output_dir."
            ) from error
        self.take_back()

    def lend(self) -> None:
        """Free the space of a checkpoint; that of the model stays reserved."""
        if self._reserve:
            self._reserve.hold(min(self.model, self._reserve.size))

    def take_back(self) -> None:
        """Reserve the space of the next checkpoint, if there is room."""
        if self._reserve:
            with suppress(OSError):  # the model has its space; the run goes on without this
                self._reserve.hold(self.model + self.checkpoint + ROUNDING)

    def release(self) -> None:
        """Free all of it, for the model or what is saved instead."""
        if self._reserve:
            self._reserve.close()
        self._reserve = None


def require(folder: Path, needed: int) -> None:
    """Raise `NotWritable` where a file system has less than `needed` bytes free, rather than leave
    half a file."""
    free = shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free
    if free < needed:
        raise NotWritable(f"{folder} has {size(free)} free, and {size(needed)} are needed.")


class FallbackCheckpoint(NamedTuple):
    """A checkpoint saved after a failure, and the value of --resume_from_checkpoint for it."""

    folder: Path
    named: str

    def __str__(self) -> str:
        return f"go on with --resume_from_checkpoint {self.named}"


def save_somewhere(checkpoints: Checkpoints, files: Files) -> FallbackCheckpoint:
    """Write a checkpoint of `files` where there is room.

    Raises `UserError` where there was none for 15 minutes, or for the model alone.
    """
    run, waited = checkpoints.run, time.monotonic() + SECONDS_OF_WAITING
    warned = False
    while True:
        reasons = []
        for attempt in attempts(checkpoints, files):
            try:
                return attempt()
            except NotWritable as error:
                reasons.append(error.reason)
        if time.monotonic() >= waited:
            raise UserError(
                f"{reasons[0]} No other place here could take what was learned up to step "
                f"{checkpoints.step} either."
            )
        if not warned:
            run.say(
                f"{reasons[0]} No other place here takes what was learned either: make room. It "
                f"is tried again for {SECONDS_OF_WAITING // 60} minutes; Ctrl-C, twice, gives up."
            )
            warned = True
        time.sleep(SECONDS_BETWEEN_TRIES)


def attempts(checkpoints: Checkpoints, files: Files) -> Iterator[Callable[[], FallbackCheckpoint]]:
    """Ways to save what was learned, the best first; each raises `NotWritable` where it fails."""
    others = list(places(checkpoints.config.output, checkpoints.run.id))
    yield partial(_in_its_place, checkpoints, files)
    yield from (partial(_elsewhere, checkpoints, files, place) for place in others)
    if not checkpoints.config.shard:  # gathered by all processes, and they do not take part here
        yield from (partial(_model_alone, checkpoints, place) for place in others)


def _in_its_place(checkpoints: Checkpoints, files: Files) -> FallbackCheckpoint:
    return FallbackCheckpoint(checkpoints.write(checkpoints.config.output, files), "latest")


def _elsewhere(checkpoints: Checkpoints, files: Files, place: Path) -> FallbackCheckpoint:
    with _unless_empty(place):
        folder = checkpoints.write(place, files)
    return FallbackCheckpoint(folder, str(folder))


def _model_alone(checkpoints: Checkpoints, place: Path) -> FallbackCheckpoint:
    """Save only the model, as after the last step."""
    run, step = checkpoints.run, checkpoints.step
    try:
        with _unless_empty(place):
            require(place, run.room.model)
            checkpoints.learner.save(place, run.manifest(checkpoints.latents, step))
    except (UserError, OSError) as error:
        raise NotWritable(str(error)) from error
    raise UserError(
        f"{checkpoints.config.output} has no room for a checkpoint, nor has any other place here. "
        f"The model after step {step} is whole in {place}."
    )


@contextmanager
def _unless_empty(place: Path) -> Iterator[None]:
    """Context after which the folder is removed if nothing was written into it."""
    try:
        yield
    finally:
        with suppress(OSError):
            place.rmdir()


def places(output: Path, name: str) -> Iterator[Path]:
    """Folders for a run outside OUTPUT_DIR, where there may be room."""
    temporary = (os.environ.get("TMPDIR", "/tmp"), "/var/tmp", "/dev/shm")
    others = [output.absolute().parent, Path.home(), *map(Path, temporary)]
    for place in dict.fromkeys(others):
        if os.access(place, os.W_OK):
            yield place / f"{output.absolute().name}-{name}"
