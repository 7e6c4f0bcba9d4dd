"""Room in OUTPUT_DIR for what must be saved, kept free from the first step on."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from core.disk import ReservedSpace
from core.errors import UserError
from core.files import NotWritable
from core.formatting import size

ROUNDING = 2**20  # bytes: files take whole blocks, and folders take some too


class DiskReserve:
    """What a checkpoint and the model will take is set aside before the first step, so that a disk
    that others fill meanwhile cannot cost what was trained.

    It is a file without a name, which goes with its process, however that ends.
    """

    def __init__(self, output: Path):
        self.output = output
        self.checkpoint, self.model = 0, 0  # bytes
        self._reserve: ReservedSpace | None = None

    def take(self, checkpoint: int, model: int) -> None:
        """Raises `UserError` where there is no room for a model of so many bytes."""
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
        """Let go what a checkpoint takes; the model's room stays."""
        if self._reserve:
            self._reserve.hold(min(self.model, self._reserve.size))

    def take_back(self) -> None:
        """Set aside what the next checkpoint takes, if that is there."""
        if self._reserve:
            with suppress(OSError):  # the model has its room, and a run goes on without the other
                self._reserve.hold(self.model + self.checkpoint + ROUNDING)

    def release(self) -> None:
        """Let all of it go: for the model, or for what is saved in its stead."""
        if self._reserve:
            self._reserve.close()
        self._reserve = None


def require(folder: Path, needed: int) -> None:
    """Raise `NotWritable` where a file system has less than `needed` bytes free: then nobody's last
    bytes are taken for half a file."""
    free = shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free
    if free < needed:
        raise NotWritable(f"{folder} has {size(free)} free, and {size(needed)} are needed.")
