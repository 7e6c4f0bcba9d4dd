"""How a server ends: at once, whatever its threads are doing, and with nothing left behind.

A thread inside PyTorch cannot be stopped, and Python's own way out takes from under it what it
stands on: the process aborts. A signal that comes while the main thread is in there waits for as
long as it is. So a thread that does nothing else waits for signals, clears away what was asked for,
for a bounded time, and ends the process without waiting for anybody.
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
    """Call it when the process ends by `leave`: beside the others, in a thread of its own."""
    _last_acts.append(act)


def keep_temporary_files_together(parent: str | None = None) -> None:
    """From now on all are in one folder of this process, which goes at the end.

    `parent`: where it is; None: where the system has them. Raises UserError where none can be made.
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
            # Out of the way of those who are still writing into it.
            gone = f"{folder.name}-gone"
            os.rename(folder.name, gone)
            shutil.rmtree(gone, ignore_errors=True)

    at_end(clear)


def end_at_signals() -> None:
    """From now on a signal ends the process, with exit code 128 + its number; what is ignored
    already, as nohup does, still is. To be called in the main thread."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    # Written to at once, and not when the main thread has time for it.
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    # Both ends: the writer would be closed with the last that knows of it.
    waiting = threading.Thread(target=_wait, args=(reader, writer), name="end")
    waiting.daemon = True
    waiting.start()


@contextmanager
def at_once() -> Iterator[None]:
    """Whoever leaves this, by an exit code or an error, leaves the process."""
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
    """End the process, with a word on stderr. What `at_end` was told of is done, if that takes no
    longer than it should."""
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
