"""Libraries that say what an error says as well."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent_log() -> Iterator[None]:
    """A library logs an error, or a table of it, before it raises it; one sentence is enough."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
