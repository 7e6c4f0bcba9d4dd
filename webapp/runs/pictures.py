"""Sets of pictures to learn from, below the folder of runs: originals, a draft, what is ready."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from core.disk import held
from core.errors import UserError
from core.file_names import free_path, safe_part
from core.files import replaced, vanish
from core.paths import is_there
from webapp.runs import draft
from webapp.runs.draft import AddedSource, Draft, read_draft, write_draft
from webapp.runs.folder import check_name, now

MAX_SETS = 1_000  # that are listed
NO_SET = "There are no pictures {name!r}. They may be deleted."


@dataclass(frozen=True)
class PictureSet:
    """A folder with originals/, draft.json and, once it was prepared, ready/."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def originals(self) -> Path:
        """What was dropped, as it came."""
        return self.path / "originals"

    @property
    def ready(self) -> Path:
        """The data set that is learned from."""
        return self.path / "ready"

    @property
    def incoming(self) -> Path:
        """Files that are on their way, and archives until they are unpacked."""
        return self.path / "incoming"

    @property
    def draft(self) -> Draft:
        """Raises UserError."""
        return read_draft(self.path)

    def change(self, update: Callable[[Draft], Draft]) -> Draft:
        """Change the draft; of two that do so at once, each sees what the other has changed.

        Raises UserError.
        """
        try:
            with held(self.path):
                before = self.draft
                after = update(before)
                if after != before:
                    write_draft(self.path, after)
                return after
        except FileNotFoundError:
            raise UserError(NO_SET.format(name=self.name)) from None

    def add_source(self, *added: AddedSource) -> None:
        """Have archives, folders or tables read. One that was read is read again."""
        places = {each.place for each in added}

        def update(known: Draft) -> Draft:
            others = [each for each in known.sources if each.place not in places]
            return replace(known, sources=(*others, *added))

        self.change(update)

    def drop_source(self, place: str) -> None:
        """Forget a source, and delete it if it is an archive that was sent here."""
        self.change(
            lambda known: replace(
                known, sources=tuple(each for each in known.sources if each.place != place)
            )
        )
        path = Path(place)
        if path.parent == self.incoming:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def free_original(self, wanted: str) -> str:
        """A path in originals/ that is not taken."""
        return free_path(wanted, lambda each: is_there(self.originals / each))


class PictureSets:
    """The sets right below a folder, which is made when the first one is."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def names(self) -> list[str]:
        """Of all sets, the last changed first."""
        try:
            with os.scandir(self.path) as entries:
                found = [each.name for each in entries if self._is_set(each.name)]
        except OSError:
            return []
        return sorted(found, key=self._changed, reverse=True)[:MAX_SETS]

    def set(self, name: str) -> PictureSet:
        """Raises UserError where there is none of that name, or none that can be read."""
        found = self.made(name)
        read_draft(found.path)
        return found

    def new(self, name: str) -> PictureSet:
        """Make a set. Raises UserError where there is one, or it cannot be made."""
        check_name(name)
        made = PictureSet(self.path / name)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with held(self.path):
                if is_there(made.path):
                    raise UserError(f"There are pictures {name!r} already. Choose another name.")
                with replaced(made.path) as staged:
                    (staged / made.originals.name).mkdir(parents=True)
                    write_draft(staged, Draft(created=now()))
        except OSError as error:
            raise UserError(f"{made.path} cannot be made: {error.strerror}.") from error
        return made

    def free_name(self, wanted: str) -> str:
        """A name like `wanted` that no set has."""
        return free_path(safe_part(wanted) or "pictures", lambda name: is_there(self.path / name))

    def made(self, name: str) -> PictureSet:
        """A set of any version. Raises UserError where there is none of that name."""
        if not self._is_set(name):
            raise UserError(NO_SET.format(name=name[:60]))
        return PictureSet(self.path / name)

    def delete(self, name: str) -> None:
        """Delete a set with all that is in it. Raises UserError where it cannot be deleted.

        The caller makes sure that no process reads or writes there.
        """
        folder = self.made(name)
        try:
            vanish(folder.path)
        except OSError as error:
            raise UserError(f"{folder.path} cannot be deleted: {error.strerror}.") from error

    def _is_set(self, name: str) -> bool:
        """Whether the page made it: others are neither shown nor deleted."""
        path = self.path / name
        plain = name[:1] not in ("", ".") and os.path.basename(name) == name
        return plain and not os.path.islink(path) and os.path.isfile(path / draft.FILE)

    def _changed(self, name: str) -> float:
        try:
            return (self.path / name / draft.FILE).stat().st_mtime
        except OSError:
            return 0.0
