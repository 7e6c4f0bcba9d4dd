"""Log filter: a limit per minute on lines of the same kind, however many requests cause one. The
first line of the next minute says how many were left out."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from webapp import limits

WINDOW_SECONDS = 60
LEFT_OUT = "{message} (and {count:,} more like this in the last minute)"


class RateLimit(logging.Filter):
    """Passes LOG_LINES records a minute from each line of code."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self._clock, self._counting = clock, threading.Lock()
        self._counts: dict[tuple[str, int], tuple[float, int]] = {}  # since when, how many

    def filter(self, record: logging.LogRecord) -> bool:
        with self._counting:
            left_out = self._count((record.pathname, record.lineno))
        if left_out is None:
            return False
        if left_out:
            record.msg = LEFT_OUT.format(message=record.getMessage(), count=left_out)
            record.args = ()
        return True

    def _count(self, kind: tuple[str, int]) -> int | None:
        """How many records of the last minute were left out; None where this one is, too."""
        now = self._clock()
        since, count = self._counts.get(kind, (now, 0))
        left_out = 0
        if now - since >= WINDOW_SECONDS:
            left_out, since, count = max(0, count - limits.LOG_LINES), now, 0
        self._counts[kind] = (since, count + 1)
        return left_out if count < limits.LOG_LINES else None


BOUNDED = RateLimit()


def bound_log() -> None:
    """Limit what is logged to the terminal: by uvicorn, and by loggers without a handler."""
    for handler in (*logging.getLogger("uvicorn").handlers, logging.lastResort):
        if handler:
            handler.addFilter(BOUNDED)
