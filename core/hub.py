"""The model hub: asked first whether it answers, and never waited for without end.

Its own libraries ask for each file six times, a minute each, and nothing bounds a name server that
is silent. Where the hub does not answer, they take what they have kept of it here.
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

ANSWER_SECONDS = 10  # to the first question, and until something comes of a file
MAX_TRIES = 3  # of the same request, none of which is answered
ASKED_AGAIN_SECONDS = 60  # after it was silent
KINDS = {"model": "model", "dataset": "data set"}


class _Silence:
    """When the hub did not answer, for all libraries that use it: then they are offline."""

    def __init__(self):
        self.since: float | None = None

    def begin(self) -> None:
        self.since = time.monotonic()
        _be_offline(True)

    def is_over(self) -> bool:
        """Whether it may be asked: again, or because it has not been silent."""
        if self.since is not None and time.monotonic() - self.since >= ASKED_AGAIN_SECONDS:
            self.since = None
            _be_offline(False)
        return self.since is None


_silence = _Silence()


def find(name: str, kind: str = "model") -> bool:
    """Whether the hub answers and has a repository of this name; False also for what is here.

    Raises UserError where it answers that it has none.
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
    """Whether the hub answers at all."""
    from huggingface_hub import constants, get_session

    return _answers(lambda: get_session().head(constants.ENDPOINT, timeout=ANSWER_SECONDS))


@contextmanager
def bounded_downloads() -> Iterator[None]:
    """Also those by libraries that use no bound, from elsewhere than the hub."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(ANSWER_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _answers(question: Callable[[], object]) -> bool:
    """Raises the hub's refusals."""
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
    """Raises what the question does, or TimeoutError."""
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
    """Give every request of huggingface_hub its time, and so many tries."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    if isinstance(_http._GLOBAL_CLIENT_FACTORY, _BoundedClients):
        return
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of every try
    set_client_factory(_BoundedClients(_http._GLOBAL_CLIENT_FACTORY))


class _BoundedClients:
    """Makes HTTP clients that give up where nobody answers."""

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
        asked = request.method, str(request.url)
        self._tries[asked] += 1
        if self._tries[asked] > MAX_TRIES:
            self._tries.clear()
            _silence.begin()  # the next hook refuses the request
        bounds = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            name: min(bounds.get(name) or ANSWER_SECONDS, ANSWER_SECONDS)
            for name in ("connect", "read", "write", "pool")
        }

    def _end(self, response: Response) -> None:
        self._tries.pop((response.request.method, str(response.request.url)), None)
