"""Terminating signals, raised as exceptions so that clean-up runs, or deferred until work is
saved."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# Signals that terminate a process by default without being the sign of a crash: from the terminal,
# from batch systems (SGE and LSF send SIGUSR1 or SIGUSR2 before they kill, SIGXCPU at the time
# limit), from a failing power supply.
ENDING = tuple(
    getattr(signal, name)
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM",
                 "SIGXCPU", "SIGPWR") if hasattr(signal, name)
)  # fmt: skip
USUAL = (signal.SIG_DFL, signal.default_int_handler)
SECONDS_TO_INSIST = 1.0  # longer than a launcher takes to pass Ctrl-C on


class Terminated(SystemExit):
    """A signal ended the process; the exit code is the shells': 128 + the signal's number."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number = number

    def __str__(self) -> str:
        return f"Ended by {signal.Signals(self.number).name}."


@contextmanager
def ending_as_exceptions() -> Iterator[None]:
    """Make the first terminating signal in the block raise `Terminated` in the main thread.

    Ctrl-C still raises KeyboardInterrupt, and ignored signals stay ignored, as under nohup.
    """
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
    for each in ENDING:  # a second signal must not interrupt the clean-up
        if signal.getsignal(each) is _end:
            signal.signal(each, lambda *_: None)
    raise Terminated(number)


class DeferredSignals:
    """Context in which a terminating signal is only recorded, in `signal`.

    Later signals are ignored: a closing terminal sends SIGHUP twice, a launcher SIGTERM after
    Ctrl-C, a time limit SIGXCPU every second. A second Ctrl-C after more than a second interrupts
    at once. A recorded signal raises `Terminated` on leaving.
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
        """Whether a signal was recorded."""
        return self.signal is not None

    def _note(self, number: int, _frame) -> None:
        if self.signal is None:
            self.signal, self._noted = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._noted > SECONDS_TO_INSIST:
            raise KeyboardInterrupt
