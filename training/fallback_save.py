"""Where what was learned goes when OUTPUT_DIR cannot take it: elsewhere, or there once there is
room. As long as the process lives, nothing is lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from core.errors import UserError
from core.files import NotWritable
from training.checkpoint import Files
from training.disk_reserve import require

SECONDS_BETWEEN_TRIES, SECONDS_OF_WAITING = 10, 15 * 60


class FallbackCheckpoint(NamedTuple):
    """A checkpoint of what was learned, and what to say to --resume_from_checkpoint."""

    folder: Path
    named: str

    def __str__(self) -> str:
        return f"go on with --resume_from_checkpoint {self.named}"


def kept_somewhere(checkpoints, files: Files) -> FallbackCheckpoint:
    """Write a checkpoint of `files` where there is room.

    Raises `UserError` where there was none for 15 minutes, or for the model alone.
    """
    run, waited = checkpoints.run, time.monotonic() + SECONDS_OF_WAITING
    told = False
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
        if not told:
            run.say(
                f"{reasons[0]} No other place here takes what was learned either: make room. It "
                f"is tried again for {SECONDS_OF_WAITING // 60} minutes; Ctrl-C, twice, gives up."
            )
            told = True
        time.sleep(SECONDS_BETWEEN_TRIES)


def attempts(checkpoints, files: Files) -> Iterator[Callable[[], FallbackCheckpoint]]:
    """Ways to keep what was learned, the best first; each raises `NotWritable` where it fails."""
    others = list(places(checkpoints.config.output, checkpoints.run.id))
    yield partial(_in_its_place, checkpoints, files)
    yield from (partial(_elsewhere, checkpoints, files, place) for place in others)
    if not checkpoints.config.shard:  # gathered by all processes, and they do not take part here
        yield from (partial(_model_alone, checkpoints, place) for place in others)


def _in_its_place(checkpoints, files: Files) -> FallbackCheckpoint:
    return FallbackCheckpoint(checkpoints.write(checkpoints.config.output, files), "latest")


def _elsewhere(checkpoints, files: Files, place: Path) -> FallbackCheckpoint:
    with _unless_empty(place):
        folder = checkpoints.write(place, files)
    return FallbackCheckpoint(folder, str(folder))


def _model_alone(checkpoints, place: Path) -> FallbackCheckpoint:
    """Less than a checkpoint: what would have been saved had this been the last step."""
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
    """Afterwards the folder is gone where nothing was written to it."""
    try:
        yield
    finally:
        with suppress(OSError):
            place.rmdir()


def places(output: Path, name: str) -> Iterator[Path]:
    """Folders of a run outside of OUTPUT_DIR, where there may be room."""
    others = (output.absolute().parent, Path.home(), os.environ.get("TMPDIR", "/tmp"), "/var/tmp",
              "/dev/shm")  # fmt: skip
    for place in dict.fromkeys(map(Path, others)):
        if os.access(place, os.W_OK):
            yield place / f"{output.absolute().name}-{name}"
