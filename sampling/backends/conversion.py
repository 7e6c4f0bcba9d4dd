"""Conversion in a process of its own, so that whoever draws meanwhile keeps the interpreter, and so
that it can be stopped: tracing a network holds Python's lock, and nothing interrupts it.

`python -m sampling.backends.conversion BACKEND` is that process. It reads folders, one a line, each
with a part to be converted, and answers each with a line of JSON: what went wrong, or null. Where
its input ends, as it does with the process that wants it, it ends, and leaves nothing half-written.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from core import bounded_json
from core.errors import reason_of
from core.files import discard
from core.paths import ROOT

if TYPE_CHECKING:
    from sampling.backends.parts import Part

COMMAND = (sys.executable, "-m", __name__)
GIVEN = "given"  # the folder, within the one to be filled, of what is converted
NICENESS = 10
MOST_BYTES = 2**16  # of an answer


class Converter:
    """Converts parts in one process, which it starts when there is a first one, and ends with
    `stop`."""

    def __init__(self, backend: str, command: Sequence[str] = COMMAND):
        self._words = [*command, backend]
        self._process: subprocess.Popen | None = None
        self._stopped = False
        self._lock = threading.Lock()  # of these two

    def __call__(self, part: Part, folder: Path) -> None:
        """Fill a folder. Raises RuntimeError where the conversion fails, or is stopped."""
        from sampling.backends.given_part import write_part

        given = folder / GIVEN
        try:
            write_part(part, given)
            if reason := self._answer(folder):
                raise RuntimeError(reason)
        finally:
            discard(given)

    def stop(self) -> None:
        """End the process, whatever it is at; nothing is converted from now on."""
        with self._lock:
            self._stopped = True
            if self._process:
                self._process.kill()
                self._process.wait()

    def close(self) -> None:
        """The same, in the thread that has converted."""
        self.stop()
        if self._process and self._process.stdin and self._process.stdout:
            self._process.stdout.close()
            with suppress(OSError):
                self._process.stdin.close()

    def _answer(self, folder: Path) -> object:
        with self._lock:
            if self._stopped:
                return "it was stopped"
            process = self._process = self._process or self._started()
        assert process.stdin and process.stdout
        with suppress(OSError, ValueError):  # it has ended, or was stopped
            process.stdin.write(f"{folder.resolve()}\n".encode())
            process.stdin.flush()
            if line := process.stdout.readline(MOST_BYTES):
                return bounded_json.loads(line)
        return "its process has ended, as where memory runs out"

    def _started(self) -> subprocess.Popen:
        more = {"OMP_NUM_THREADS": "1"}  # tracing calls a network once, at a small picture
        return subprocess.Popen(
            self._words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=os.environ | more,
            start_new_session=True,  # a signal to the terminal is not for it
        )


def main(backend: str) -> None:
    """Convert what is asked for."""
    _give_way()
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # whatever libraries print is no answer
        orders: queue.SimpleQueue[Path] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(sys.stdin.buffer, orders), daemon=True).start()
        while True:
            answers.write(json.dumps(_converted(backend, orders.get())) + "\n")
            answers.flush()


def _give_way() -> None:
    """The page goes before it, and where memory runs out it is the first to be ended."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _read(source: IO[bytes], orders: queue.SimpleQueue[Path]) -> None:
    folder = None
    for line in source:
        folder = Path(os.fsdecode(line.rstrip(b"\n")))
        orders.put(folder)
    if folder:
        discard(folder)
    os._exit(1)


def _converted(backend: str, folder: Path) -> str | None:
    """What went wrong, or None."""
    try:
        from sampling.backends.formats import FORMATS
        from sampling.backends.given_part import read_part

        FORMATS[backend].write(read_part(folder / GIVEN), folder)
    except Exception as error:  # there are as many as ways in which a compiler can fail
        return reason_of(error)
    return None


if __name__ == "__main__":
    main(sys.argv[1])
