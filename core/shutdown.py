"""Immediate shutdown of a server: cleans up and exits, whatever its threads are doing.

A thread inside PyTorch cannot be interrupted, and a normal interpreter exit tears down what it is
using, so that the process aborts; a Python signal handler would wait for as long as the main thread
is in there. So a dedicated thread receives signals, runs the clean-up for a bounded time, and ends
the process without waiting for the others.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from tempfile import TemporaryDirectory
from typing import NoReturn

from core.errors import UserError
from core.signals import ENDING
from core.terminal import complain

TIDY_SECONDS = 1.0
_last_acts: list[Callable[[], object]] = []


def at_end(act: Callable[[], object]) -> None:
    """Register clean-up to be run, in a thread of its own, when `leave` ends the process."""
    _last_acts.append(act)


def keep_temporary_files_together(parent: str | None = None) -> None:
    """Put all temporary files of this process into one folder, deleted on shutdown.

    `parent`: where to make it; None: the system's place. Raises UserError if it cannot be made.
    """
    try:
        if parent:
            os.makedirs(parent, exist_ok=True)
        folder = TemporaryDirectory(prefix="sd-pokemon-", dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        place = parent or os.environ.get("TMPDIR") or "the system's folder"
        raise UserError(
            f"Temporary files cannot be kept in {place} ({error.strerror}). Make room, or name "
            "another folder: TMPDIR=FOLDER before the command."
        ) from error
    tempfile.tempdir = folder.name

    def clear() -> None:
        while os.path.exists(folder.name):
            # Renamed first: threads may still be writing into it.
            gone = f"{folder.name}-gone"
            os.rename(folder.name, gone)
            shutil.rmtree(gone, ignore_errors=True)

    at_end(clear)


def end_at_signals() -> None:
    """Make signals end the process at once, with exit code 128 + number. Ignored signals stay
    ignored, as under nohup. Call it in the main thread."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    # Written to immediately, not when the main thread next runs Python code.
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    # The writer is passed too, so that it is not garbage-collected and closed.
    waiting = threading.Thread(target=_wait, args=(reader, writer), name="end")
    waiting.daemon = True
    waiting.start()


@contextmanager
def at_once() -> Iterator[None]:
    """End the process on leaving the block, with the exit code or after printing the error."""
    code, word = 0, ""
    try:
        yield
    except SystemExit as end:
        if isinstance(end.code, str):
            code, word = 1, end.code
        else:
            code = end.code or 0
    except BaseException:
        code = 1
        sys.excepthook(*sys.exc_info())
    leave(code, word)


def leave(code: int, word: str = "") -> NoReturn:
    """End the process with a message on stderr, after at most TIDY_SECONDS of clean-up."""
    acts = [sys.stdout.flush, *_last_acts]
    if word:
        acts.insert(0, partial(complain, word))
    threads = [threading.Thread(target=_try, args=(act,), daemon=True) for act in acts]
    try:
        for thread in threads:
            thread.start()
        end = time.monotonic() + TIDY_SECONDS
        for thread in threads:
            thread.join(max(0, end - time.monotonic()))
    finally:
        os._exit(code)


def _wait(reader: socket.socket, _: socket.socket) -> None:
    while (number := reader.recv(1)[0]) not in ENDING:
        pass
    leave(128 + number, "Interrupted." if number == signal.SIGINT else "")


def _try(act: Callable[[], object]) -> None:
    with suppress(OSError, ValueError):  # a terminal that is closed, a file that is gone
        act()
