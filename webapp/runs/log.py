"""log.jsonl of a run: read once, then only what was added; of a long one, as much as can be shown.

Anybody may have written it, and it grows while it is read.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from core.bounded_json import JSONFault, loads
from core.paths import opened, own_path
from core.run_folder import FILE, is_record

MAX_BYTES = 64 * 2**20  # of a log: of a longer one, its end
TAIL_BYTES = 64 * 2**10
MAX_LINE_CHARACTERS = 2**18
MAX_RECORDS = 4_000  # of a run's steps: more cannot be told apart on a chart
MAX_LOGS = 32  # whose records are kept


class RunLog:
    """The records of one log by step, of the run that wrote last.

    Where a resumed run went back, what it had written beyond is dropped: it comes again.
    """

    def __init__(self) -> None:
        self.records: list[dict] = []
        self._file: tuple[int, int] | None = None  # device and inode
        self._read = 0  # bytes

    def refresh(self, path: Path) -> None:
        """Read what was added. Raises OSError."""
        with opened(path) as file:
            found = os.fstat(file.fileno())
            if (found.st_dev, found.st_ino) != self._file or found.st_size < self._read:
                self.records, self._read = [], 0
                self._file = (found.st_dev, found.st_ino)
            if found.st_size == self._read:
                return
            start = max(self._read, found.st_size - MAX_BYTES)
            file.seek(start)
            content = file.read(found.st_size - start)
        whole = content.rfind(b"\n") + 1
        if record_in(content[whole:]) is not None:  # else it is half-written
            whole = len(content)
        self._read = start + whole
        for line in _selected(content[:whole]):
            self._add(line)
        if len(self.records) > 2 * MAX_RECORDS:
            self.records = _thinned(self.records)

    def _add(self, line: bytes) -> None:
        record = record_in(line)
        if record is None:
            return
        records = self.records
        if records and records[-1].get("run_id") != record.get("run_id"):
            records.clear()  # an earlier run in the same folder
        while records and records[-1]["step"] > record["step"]:
            records.pop()
        if records and _place(records[-1]) == _place(record):
            records.pop()
        records.append(record)


class RunLogs:
    """The logs of the runs looked at last. Thread-safe."""

    def __init__(self) -> None:
        self._logs: OrderedDict[Path, RunLog] = OrderedDict()
        self._lock = threading.Lock()

    def records(self, folder: Path) -> tuple[dict, ...]:
        """The records of a run by now, by step; none where there is no log."""
        with self._lock:
            log = self._logs.pop(folder, None) or RunLog()
            try:
                log.refresh(own_path(folder, FILE))
            except OSError:
                return ()
            self._logs[folder] = log
            while len(self._logs) > MAX_LOGS:
                self._logs.popitem(last=False)
            return tuple(log.records)


def last_records(folder: Path) -> tuple[dict, ...]:
    """The records at the end of a log, in the order in which they were written."""
    try:
        with opened(own_path(folder, FILE)) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            lines = file.read(TAIL_BYTES).split(b"\n")
    except OSError:
        return ()
    found = []
    for line in reversed(lines):
        if (record := record_in(line)) is not None:
            found.append(record)
        if len(found) == 2:  # a step and a validation after it
            break
    return tuple(reversed(found))


def record_in(line: bytes) -> dict | None:
    """The record in a line; None for one that is none."""
    if not line.strip():
        return None
    try:
        record = loads(line.decode(errors="replace"), MAX_LINE_CHARACTERS)
    except JSONFault:
        return None
    return record if is_record(record) and record["step"] >= 0 else None


def _selected(content: bytes) -> Iterator[bytes]:
    """The lines; of a long log about MAX_RECORDS of steps and as many others, the last ones among
    them. A million lines are never held at once."""
    left = Counter(b'"loss"' in line for line in BytesIO(content))
    every = {kind: -(-count // MAX_RECORDS) for kind, count in left.items()}
    for line in BytesIO(content):
        kind = b'"loss"' in line
        left[kind] -= 1
        if left[kind] % every[kind] == 0:
            yield line


def _thinned(records: list[dict]) -> list[dict]:
    """Every second record of a step, and of the others if they are too many."""
    kinds: dict[bool, list[int]] = {True: [], False: []}
    for number, record in enumerate(records):
        kinds["loss" in record].append(number)
    kept = [number for several in kinds.values() for number in (
        several[::-1][::2] if len(several) > MAX_RECORDS else several)]  # fmt: skip
    return [records[number] for number in sorted(kept)]


def _place(record: dict) -> tuple[int, bool]:
    return record["step"], "loss" in record
