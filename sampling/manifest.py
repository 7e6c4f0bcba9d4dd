"""manifest.jsonl of a folder of pictures: a JSON line for each, with all settings that drew it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection
from pathlib import Path

from core.bounded_json import JSONFault, loads
from core.errors import UserError
from core.files import replaced
from core.paths import fault_of, is_there, opened, read_text
from sampling.image import PROBLEMS

NAME = "manifest.jsonl"
MAX_BYTES = 2**30
SHARE_OF_TIME = 50  # a write is due after this many times the duration of the last one


class Manifest:
    """The entries by file name; written atomically, sorted by name.

    An entry has "file" (null for a picture with a "problem", which is not saved) and "sha256".
    """

    def __init__(self, folder: Path):
        """Reads the manifest of the folder, if any. Raises UserError for a damaged one."""
        self.path = folder / NAME
        self.entries: dict[str, dict] = {}
        self._due = 0.0
        if is_there(self.path):
            for number, line in enumerate(self._read().split("\n"), start=1):
                if line:
                    entry = self._entry(number, line)
                    self.entries[entry["file"] or f"line {number}"] = entry

    def write(self) -> None:
        """Raises `core.files.NotWritable`, and then leaves the previous manifest in place."""
        started = time.monotonic()
        lines = [f"{json.dumps(self.entries[name])}\n" for name in sorted(self.entries)]
        with replaced(self.path) as staged:
            staged.write_text("".join(lines), encoding="utf-8")
        now = time.monotonic()
        self._due = now + SHARE_OF_TIME * (now - started)

    def write_if_due(self) -> None:
        """Write if the last one is long ago: little is lost, and little time spent on it."""
        if time.monotonic() >= self._due:
            self.write()

    def forget(self, names: Collection[str]) -> None:
        """Remove the entries of files that are about to change, on the disk as well."""
        if known := [name for name in names if name in self.entries]:
            for name in known:
                del self.entries[name]
            self.write()

    def holds(self, entry: dict) -> bool:
        """Whether the file of an entry exists with the content that was written."""
        try:
            return sha256_of(self.path.with_name(entry["file"])) == entry.get("sha256")
        except OSError:
            return False

    def _read(self) -> str:
        try:
            return read_text(self.path, MAX_BYTES)
        except (OSError, UnicodeError) as error:
            fault = fault_of(error) if isinstance(error, OSError) else "is not UTF-8 text"
            raise self._unread(f"{self.path} {fault}") from error

    def _entry(self, number: int, line: str) -> dict:
        try:
            entry = loads(line)
        except JSONFault as error:
            raise self._unread(f"{self.path}, row {number} {error}") from error
        if not isinstance(entry, dict):
            entry = {}
        name = entry.get("file", "")
        # A bare name, not a path that leads elsewhere.
        if name is not None and (not isinstance(name, str) or not name or Path(name).name != name):
            raise self._unread(f"{self.path}, row {number} names no picture of its folder")
        if name is None and entry.get("problem") not in PROBLEMS:
            raise self._unread(f"{self.path}, row {number} names neither a picture nor a problem")
        return entry | {"problem": entry.get("problem") if name is None else None}

    def _unread(self, what: str) -> UserError:
        return UserError(f"{what}. Delete the file to draw all again, or give another --output.")


def sha256_of(path: Path) -> str:
    """Digest of a file. Raises OSError, also for a named pipe, which would block for ever."""
    with opened(path) as file:
        digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]  # it has readinto
    return digest.hexdigest()
