"""Sizes of runs on disk: counted in a thread of their own, and again when a run has changed."""

from __future__ import annotations

import os
import queue
import threading
from pathlib import Path

from webapp.runs.folder import MAX_RUNS, RunFolder, size_of

Stamp = tuple[tuple[str, int], ...]


class Sizes:
    """How much runs take on disk. Nobody waits for it: a folder may hold thousands of files."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Stamp, int]] = {}
        self._counting: set[Path] = set()
        self._asked: queue.SimpleQueue[tuple[Path, Stamp]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def of(self, folder: RunFolder) -> int | None:
        """Bytes of a run as they were last counted; None before the first time."""
        path, stamp = folder.path, _stamp(folder.path)
        with self._lock:
            counted = self._known.get(path)
            if (counted is None or counted[0] != stamp) and path not in self._counting:
                self._counting.add(path)
                self._asked.put((path, stamp))
                if self._thread is None:
                    self._thread = threading.Thread(target=self._count, name="sizes", daemon=True)
                    self._thread.start()
            return counted[1] if counted else None

    def _count(self) -> None:
        while True:
            path, stamp = self._asked.get()
            size = size_of(path)
            with self._lock:
                self._counting.discard(path)
                self._known[path] = (stamp, size)
                while len(self._known) > MAX_RUNS:
                    self._known.pop(next(iter(self._known)))


def _stamp(folder: Path) -> Stamp:
    """What changes when files come or go: a folder's own time, and those of the folders in it."""
    try:
        with os.scandir(folder) as entries:
            found = [(e.name, e.stat(follow_symlinks=False).st_mtime_ns)
                     for e in entries if e.is_dir(follow_symlinks=False)]  # fmt: skip
        found.append(("", folder.stat().st_mtime_ns))
    except OSError:
        return ()
    return tuple(sorted(found))
