"""The Hugging Face hub: probed before use, with time-outs on every request.

Its own libraries retry each file six times, a minute each, and nothing bounds a name server that
does not answer. While the hub is unreachable, they are switched to offline mode and use the cache.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from core.errors import UserError, is_ours
from core.paths import is_there

if TYPE_CHECKING:
    from httpx2 import Client, Request, Response

ANSWER_SECONDS = 10  # time-out of the probe, and of each connect, read and write
MAX_TRIES = 3  # of one request without an answer
ASKED_AGAIN_SECONDS = 60  # until an unreachable hub is probed again
KINDS = {"model": "model", "dataset": "data set"}


class _Silence:
    """Offline mode of all libraries that use the hub, since when it did not answer."""

    def __init__(self):
        self.since: float | None = None

    def begin(self) -> None:
        self.since = time.monotonic()
        _be_offline(True)

    def is_over(self) -> bool:
        """Whether the hub may be key; ends offline mode after ASKED_AGAIN_SECONDS."""
        if self.since is not None and time.monotonic() - self.since >= ASKED_AGAIN_SECONDS:
            self.since = None
            _be_offline(False)
        return self.since is None


_silence = _Silence()


def find(name: str, kind: str = "model") -> bool:
    """Whether the hub answers and has a repository of this name; False also for local paths.

    Raises UserError if it answers that there is none.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id

    if is_there(name):
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    try:
        return _answers(partial(getattr(HfApi(), f"{kind}_info"), name, timeout=ANSWER_SECONDS))
    except RepositoryNotFoundError as error:
        raise UserError(
            f"There is no folder '{name}' here, and the hub has no {KINDS[kind]} of that name that "
            "you may read. Check the spelling."
        ) from error


def answers() -> bool:
    """Whether the hub is reachable."""
    from huggingface_hub import constants, get_session

    return _answers(lambda: get_session().head(constants.ENDPOINT, timeout=ANSWER_SECONDS))


@contextmanager
def bounded_downloads() -> Iterator[None]:
    """Apply the time-out to downloads of libraries that set none, from any host."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ANSWER_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _answers(question: Callable[[], object]) -> bool:
    """Whether the hub answered. Raises RepositoryNotFoundError."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    _bound_requests()
    if not _silence.is_over() or constants.is_offline_mode():
        return False
    try:
        _within(ANSWER_SECONDS, question)
    except RepositoryNotFoundError:
        raise
    except HfHubHTTPError:  # an answer, whatever it says
        return True
    except Exception as error:  # no route, no name, a proxy, a time-out: of several libraries
        if is_ours(error):
            raise
        _silence.begin()
        return False
    return True


def _within(seconds: float, question: Callable[[], object]) -> None:
    """Call `question` in a thread; raises what it raises, or TimeoutError."""
    errors: list[Exception] = [TimeoutError()]

    def ask() -> None:
        try:
            question()
            errors.clear()
        except Exception as error:
            errors[:] = [error]

    asking = threading.Thread(target=ask, name="hub", daemon=True)
    asking.start()
    asking.join(seconds)
    for error in errors:
        raise error


def _be_offline(offline: bool) -> None:
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = offline
    if config := sys.modules.get("datasets.config"):
        setattr(config, "HF_HUB_OFFLINE", offline)  # noqa: B010  (a module, to the type checker)


def _bound_requests() -> None:
    """Bound the time and the number of tries of all requests of huggingface_hub."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    if isinstance(_http._GLOBAL_CLIENT_FACTORY, _BoundedClients):
        return
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it logs every try
    set_client_factory(_BoundedClients(_http._GLOBAL_CLIENT_FACTORY))


class _BoundedClients:
    """Factory of HTTP clients with time-outs, which stop retrying after MAX_TRIES."""

    def __init__(self, make: Callable[[], Client]):
        self._make = make
        self._tries: Counter[tuple[str, str]] = Counter()  # of requests without an answer yet

    def __call__(self) -> Client:
        client = self._make()
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [self._begin, *hooks["request"]],
            "response": [*hooks["response"], self._end],
        }
        return client

    def _begin(self, request: Request) -> None:
        key = request.method, str(request.url)
        self._tries[key] += 1
        if self._tries[key] > MAX_TRIES:
            self._tries.clear()
            _silence.begin()  # the next hook refuses the request
        bounds = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            name: min(bounds.get(name) or ANSWER_SECONDS, ANSWER_SECONDS)
            for name in ("connect", "read", "write", "pool")
        }

    def _end(self, response: Response) -> None:
        self._tries.pop((response.request.method, str(response.request.url)), None)
