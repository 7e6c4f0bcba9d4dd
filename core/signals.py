"""Signals that end a process: as an exception, so that nothing half made stays behind, or only
noted, where what was done so far can be saved first."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# All whose usual course is to end a process, and that are not the sign of a fault in it: of the
# terminal, of batch systems (SGE and LSF send SIGUSR1 or SIGUSR2 before they kill, SIGXCPU at the
# limit of time), of a power supply that fails.
ENDING = tuple(
    getattr(signal, name)
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM",
                 "SIGXCPU", "SIGPWR") if hasattr(signal, name)
)  # fmt: skip
USUAL = (signal.SIG_DFL, signal.default_int_handler)
SECONDS_TO_INSIST = 1.0  # a launcher passes Ctrl-C on within less


class Terminated(SystemExit):
    """A signal ended the process; its exit code is that of shells, 128 + the signal's number."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number = number

    def __str__(self) -> str:
        return f"Ended by {signal.Signals(self.number).name}."


@contextmanager
def ending_as_exceptions() -> Iterator[None]:
    """Within it, signals that would end the process at once raise `Terminated` in the main thread,
    once; Ctrl-C raises KeyboardInterrupt as ever, and what is ignored stays so, as under nohup."""
    usual = {}
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            if signal.getsignal(number) is signal.SIG_DFL:
                usual[number] = signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def _end(number: int, _frame) -> None:
    for each in ENDING:  # a second one must not break the clearing up
        if signal.getsignal(each) is _end:
            signal.signal(each, lambda *_: None)
    raise Terminated(number)


class DeferredSignals:
    """Within it, a signal that would end the process is only noted, in `signal`.

    Others that follow change nothing: a terminal that closes sends SIGHUP twice, a launcher SIGTERM
    after Ctrl-C, a limit of time SIGXCPU at every second. Who insists by a second Ctrl-C, a second
    later or more, ends the process. What was noted and led to nothing ends it on leaving.
    """

    def __init__(self):
        self.signal, self._noted = None, 0.0
        self._usual, self._depth = {}, 0

    def __enter__(self) -> DeferredSignals:
        self._depth += 1
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            for number in ENDING:
                if signal.getsignal(number) in (*USUAL, _end):
                    self._usual[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind, *_) -> None:
        self._depth -= 1
        if self._depth:
            return
        while self._usual:
            signal.signal(*self._usual.popitem())
        if kind is None and self.signal is not None:
            raise Terminated(self.signal)

    def asked(self) -> bool:
        """Whether the process was asked to end."""
        return self.signal is not None

    def _note(self, number: int, _frame) -> None:
        if self.signal is None:
            self.signal, self._noted = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._noted > SECONDS_TO_INSIST:
            raise KeyboardInterrupt
