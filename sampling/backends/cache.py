"""Converted networks on the disk: written once, shared by processes, bounded in size."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from core import bounded_json
from core.disk import held
from core.errors import UserError
from core.files import remove_leftovers, replaced, vanish

VARIABLE = "SD_POKEMON_CACHE"  # of the environment: another folder for it
MAX_BYTES = 12 * 2**30  # three networks of the size of Stable Diffusion's
LISTED = "entry.json"  # of an entry: the size of each of its files
REFUSED = "refused.json"  # in place of what is converted: why that was of no use

Version = tuple[int, int] | None  # of an entry


def cache_folder() -> Path:
    """Where this user keeps what can be made again."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"), "sd-pokemon")


class ConversionCache:
    """Entries are folders, each named after all that decides its content. A file of it is read only
    if its size is the one that was noted when it was complete."""

    def __init__(self, folder: Path | None = None):
        self.folder = (folder or cache_folder()) / "converted"

    def find(self, key: str) -> Path | None:
        """The entry of a key, which counts as used; None where there is none, or a broken one, or
        it was refused."""
        entry = self.folder / key
        if not _is_whole(entry) or (entry / REFUSED).exists():
            return None
        with suppress(OSError):  # of somebody else, or on a read-only disk
            os.utime(entry)
        return entry

    def make(
        self, key: str, size: int, write: Callable[[Path], None], damaged: Version = None
    ) -> Path:
        """Let `write` fill the entry of a key, of about `size` bytes; another process may meanwhile
        have done so, in place of the one that is `damaged`, too. Those that were used longest ago
        give way. Raises UserError where there is no room."""
        if size > MAX_BYTES:
            raise UserError(f"The cache holds at most {MAX_BYTES:,} bytes.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be made ({error.strerror}); set {VARIABLE} to another folder"
            ) from error
        with held(self.folder):
            entry = self.find(key)
            if entry and not (damaged and version_of(entry) == damaged):
                return entry
            remove_leftovers(self.folder)
            self._delete(key)
            self._make_room(MAX_BYTES - size)
            self._put(key, write)
        return self.folder / key

    def refuse(self, key: str, reason: str) -> None:
        """Put a reason in the place of an entry: what is converted for this key is of no use."""
        with suppress(UserError), held(self.folder):  # no room: it is tried again
            self._put(key, lambda folder: (folder / REFUSED).write_text(json.dumps(reason)))

    def refusal(self, key: str) -> str | None:
        """Why an entry was refused; None where it was not."""
        entry = self.folder / key
        with suppress(OSError, ValueError):
            return str(bounded_json.read(entry / REFUSED)) if _is_whole(entry) else None
        return None

    def _put(self, key: str, write: Callable[[Path], object]) -> None:
        """Let `write` fill an entry, which takes the place of the former one. With the lock."""
        with replaced(self.folder / key) as staged:
            staged.mkdir()
            write(staged)
            sizes = {path.name: path.stat().st_size for path in staged.iterdir()}
            (staged / LISTED).write_text(json.dumps(sizes))

    def discard(self, key: str, version: Version) -> None:
        """Delete an entry, unless another process has written it anew since it had this version."""
        with held(self.folder):
            if version_of(self.folder / key) == version:
                self._delete(key)

    def _delete(self, key: str) -> None:
        """With the lock."""
        with suppress(OSError):
            vanish(self.folder / key)

    def _make_room(self, limit: int) -> None:
        """Delete entries, those first that were used longest ago, down to `limit` bytes."""
        entries = [path for path in self.folder.iterdir() if _is_entry(path)]
        used = {path: path.stat().st_mtime for path in entries}
        sizes = {path: _size(path) for path in entries}
        for path in sorted(entries, key=used.__getitem__):
            if sum(sizes.values()) <= limit:
                return
            self._delete(path.name)
            del sizes[path]


def version_of(entry: Path) -> Version:
    """Tells an entry from another that takes its place; None where there is none."""
    with suppress(OSError):
        listed = (entry / LISTED).stat()
        return listed.st_ino, listed.st_mtime_ns
    return None


def _is_entry(path: Path) -> bool:
    """Whether a folder is an entry, not what somebody else keeps there."""
    return not path.name.startswith(".") and (path / LISTED).is_file()


def _is_whole(entry: Path) -> bool:
    try:
        sizes = bounded_json.read(entry / LISTED)
        return isinstance(sizes, dict) and all(
            isinstance(name, str) and (entry / Path(name).name).stat().st_size == size
            for name, size in sizes.items()
        )
    except (OSError, ValueError):  # no JSON, or a name that no file can have
        return False


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
