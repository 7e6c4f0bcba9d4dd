"""The folder of training runs (--runs DIR): what is in it, and what the page adds and deletes.

Nothing outside the folder is ever written or deleted, and of what is inside only what the page
itself has made is deleted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from core.bounded_json import JSONFault, loads
from core.disk import held
from core.errors import UserError
from core.files import replaced, vanish
from core.paths import is_folder, is_there, read_own
from core.run_folder import FILE as LOG
from core.run_folder import checkpoints_in

TEACH_FILE = "teach.json"
VERSION = 1  # of teach.json
MAX_BYTES = 2**20
MAX_RUNS = 1_000  # that are listed
MAX_NAME_CHARACTERS = 60
NAME = re.compile(r"[^\W_][\w .()-]*", re.UNICODE)
RESERVED = {"pictures"}  # the folder of the sets
TAKEN = "There is a run {name} already. Choose another name."
NO_RUN = "There is no run {name}. It may have been deleted."


@dataclass(frozen=True)
class Teaching:
    """teach.json: what the page was asked to teach. The options are words of a command line."""

    name: str
    created: str  # ISO 8601, UTC
    kind: str  # "style" (a LoRA), "whole" (of the UNet) or "subject"
    preset: str
    pictures: str  # name of the set
    options: tuple[str, ...]  # of train_text_to_image.py, without --output_dir
    queued: str = ""  # since when it waits for its turn, ISO 8601; empty where it does not
    prompts: tuple[str, ...] = ()  # drawn while it trains
    alone: bool = False  # nothing is drawn on the page meanwhile: memory holds one of the two
    version: int = VERSION


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, whoever made it."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def teaching(self) -> Teaching | None:
        """None of a run that the page did not make, or whose file is of a newer version."""
        try:
            teaching = TypeAdapter(Teaching).validate_python(self._teach_file)
        except ValidationError:
            return None
        return teaching if teaching.version == VERSION else None

    @property
    def is_newer(self) -> bool:
        """Whether a newer version of the page made it, whose teach.json is not understood."""
        found = self._teach_file
        version = found.get("version") if isinstance(found, dict) else None
        return type(version) is int and version > VERSION

    @property
    def _teach_file(self) -> object:
        try:
            return loads(read_own(self.path, TEACH_FILE, MAX_BYTES))
        except (OSError, JSONFault):
            return None

    @property
    def is_ours(self) -> bool:
        """Whether the page made it, in this version or another."""
        return os.path.isfile(self.path / TEACH_FILE)

    @property
    def changed(self) -> float:
        """When something last happened there, in seconds since the epoch."""
        times = []
        for name in (TEACH_FILE, LOG, "run.json", ""):
            try:
                times.append((self.path / name).stat().st_mtime)
            except OSError:
                continue
        return max(times, default=0.0)

    def write(self, teaching: Teaching) -> None:
        """Raises UserError where the disk does not take it."""
        with replaced(self.path / TEACH_FILE) as staged:
            staged.write_text(json.dumps(asdict(teaching), indent=2) + "\n", encoding="utf-8")

    def change(self, **values: Any) -> None:
        """Change values of teach.json."""
        if teaching := self.teaching:
            self.write(replace(teaching, **values))


class RunsFolder:
    """Runs right below a folder. It is made when something is first written."""

    def __init__(self, path: str | Path):
        self.path = Path(path).absolute()

    @property
    def pictures(self) -> Path:
        """Where the sets of pictures are."""
        return self.path / "pictures"

    def runs(self) -> list[RunFolder]:
        """All runs, the newest first."""
        try:
            with os.scandir(self.path) as entries:
                found = [RunFolder(self.path / each.name) for each in entries if _is_run(each)]
        except OSError:
            return []
        return sorted(found, key=lambda run: run.changed, reverse=True)[:MAX_RUNS]

    def run(self, name: str) -> RunFolder:
        """Raises UserError where there is none of that name."""
        path = self.path / name
        if not _is_name(name) or path.is_symlink() or not looks_like_run(path):
            raise UserError(NO_RUN.format(name=repr(name[:MAX_NAME_CHARACTERS])))
        return RunFolder(path)

    def new_run(self, teaching: Teaching) -> RunFolder:
        """Make the folder of a run, with its teach.json or not at all. Raises UserError where it is
        there, or cannot be made."""
        check_name(teaching.name)
        folder = RunFolder(self.path / teaching.name)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with held(self.path):  # also from other apps
                if is_there(folder.path):
                    raise UserError(TAKEN.format(name=repr(teaching.name)))
                with replaced(folder.path) as staged:
                    staged.mkdir()
                    RunFolder(staged).write(teaching)
        except OSError as error:
            raise UserError(f"{folder.path} cannot be made: {error.strerror}.") from error
        return folder

    def free_name(self, wanted: str) -> str:
        """`wanted`, with a number behind it where there is a run of that name."""
        names = [wanted, *(f"{wanted} {number}" for number in range(2, MAX_RUNS + 3))]
        return next(name for name in names if not is_there(self.path / name))

    def delete(self, name: str) -> None:
        """Delete a run that the page made. Raises UserError for any other, and where that fails.

        The caller makes sure that no process writes there.
        """
        folder = self.run(name)
        if not folder.is_ours:
            raise UserError(
                f"{folder.path} was not made by this page, which deletes only its own runs. "
                "Delete it yourself."
            )
        try:
            vanish(folder.path)
        except OSError as error:
            raise UserError(f"{folder.path} cannot be deleted: {error.strerror}.") from error


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_name(name: str) -> None:
    """Raises UserError for what cannot be the name of a run or of a set of pictures."""
    if not _is_name(name):
        raise UserError(
            f"{name[:MAX_NAME_CHARACTERS]!r} cannot be a name. Begin with a letter or a digit, and "
            f"go on with letters, digits, spaces and - _ ( ) . only, {MAX_NAME_CHARACTERS} at most."
        )


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder; links are not followed."""
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    try:
        with os.scandir(folder) as entries:
            for each in entries:
                if each.is_dir(follow_symlinks=False):
                    yield from _sizes(Path(each.path))
                else:
                    yield each.stat(follow_symlinks=False).st_size
    except OSError:  # deleted meanwhile
        return


def looks_like_run(path: Path) -> bool:
    """Whether a training run, or the page, has written into the folder."""
    if not is_folder(path):
        return False
    known = (TEACH_FILE, LOG, "run.json")
    return any(os.path.isfile(path / name) for name in known) or bool(checkpoints_in(path))


def _is_run(entry: os.DirEntry) -> bool:
    return (
        _is_name(entry.name)
        and entry.is_dir(follow_symlinks=False)
        and looks_like_run(Path(entry.path))
    )


def _is_name(name: str) -> bool:
    fits = len(name.encode()) <= 200 and len(name) <= MAX_NAME_CHARACTERS
    return bool(fits and NAME.fullmatch(name)) and name not in RESERVED and name[-1] not in " ."
