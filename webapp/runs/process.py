"""Commands of this project as processes of their own: neither ends when the other does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from core.errors import UserError
from core.paths import ROOT, opened, own_path
from core.printable import printable
from core.run_process import RunProcess, process_of, read_process, remove_process, write_process

MAX_LOG_BYTES = 2**16  # of the end of a log that are read
LOG_LINES = 400  # shown


class Commands:
    """Starts commands in the project's folder, and waits for those that end so that none remains as
    a zombie.

    `python`: words that begin every command line.
    """

    def __init__(self, python: Sequence[str] = (sys.executable,), root: Path = ROOT):
        self._python, self._root = tuple(python), root

    def line(self, command: str, options: Sequence[str]) -> list[str]:
        """The command line, as a shell would start it from the project's folder."""
        return [*self._python, command, *options]

    def start(
        self, command: str, options: Sequence[str], folder: Path, log: str, record: str
    ) -> RunProcess | None:
        """Start a command; its output goes to the end of folder/`log`, and its process is noted in
        folder/`record`.

        Raises UserError where it cannot be started. None where it has ended at once.
        """
        remove_process(folder, record)
        try:
            with open(folder / log, "ab") as output:
                started = subprocess.Popen(
                    self.line(str(self._root / command), options),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=self._root,
                    start_new_session=True,  # a signal to the app's terminal is not for it
                    env=environment(),
                )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{command} cannot be started: {reason}.") from error
        threading.Thread(target=started.wait, name="command", daemon=True).start()
        if process := process_of(started.pid):
            write_process(folder, process, record)
        return process

    def answer(self, command: str, options: Sequence[str], seconds: float) -> tuple[int, str]:
        """Run a command to its end: its exit code and the last lines that it printed.

        Raises UserError where it takes longer.
        """
        words = self.line(str(self._root / command), options)
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=seconds,
                stderr=subprocess.STDOUT, cwd=self._root, env=environment(), check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise UserError(f"{command} took over {seconds:.0f} s, and was ended.") from error
        except (OSError, ValueError) as error:
            raise UserError(f"{command} cannot be started: {error}.") from error
        return done.returncode, done.stdout[-MAX_LOG_BYTES:].decode(errors="replace")


def environment() -> dict[str, str]:
    """The app's own, with what suits a command that runs beside it."""
    known = dict(os.environ)
    known["PYTHONUNBUFFERED"] = "1"
    # Threads that wait for others by spinning take the cores from whoever draws meanwhile.
    known.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return known


def ask_to_stop(folder: Path, record: str, noted_in: str | None = None) -> None:
    """Ask the process of a run to save its work and end; nothing where none is alive.

    `noted_in`: a file of the folder that names whom was asked.
    """
    process = read_process(folder, record)
    if process and process.alive:
        if noted_in:
            write_process(folder, process, noted_in)
        with suppress(OSError):
            os.kill(process.pid, signal.SIGTERM)


def log_lines(folder: Path, name: str) -> list[str]:
    """The last lines of a log, as a terminal would show them: a progress bar as its last state."""
    try:
        with opened(own_path(folder, name)) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - MAX_LOG_BYTES))
            text = file.read(MAX_LOG_BYTES).decode(errors="replace")
    except OSError:
        return []
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    return [printable(line) for line in lines if line.strip()][-LOG_LINES:]
