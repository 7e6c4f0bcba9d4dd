"""Draws a file of prompts on a Ray cluster: batches go out, pictures come back and are saved here.

Ray starts a worker that dies again and has its batch drawn by another; the seed gives the same
pictures. Nothing is written but here, so that a run that ends early is gone on with as any other.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ray
import ray.data
from ray.exceptions import RayError

from core.errors import UserError, reason_of
from core.terminal import complain
from sampling.generator import Generator, OnStep
from sampling.request import Request

if TYPE_CHECKING:
    from sampling.batch import Drawn

MAX_TRIES = 5  # of a batch whose workers die: it may be what kills them
PATIENCE_SECONDS = 60
MAX_BLOCKS = 2000  # that a file is cut into; a worker that dies draws its block again


class RemoteModel:
    """What one worker says of the model that all of them have."""

    def __init__(self, generator: Generator, requests: Sequence[Request]):
        self.size: int | None = generator.size
        self._weights = generator.weights_sha256()
        self._settings = {request: generator.settings_of(request) for request in requests}
        words = {request.words for request in requests}
        self._dropped = {prompt: generator.dropped_words(prompt) for prompt in words}

    def weights_sha256(self) -> str:
        return self._weights

    def dropped_words(self, prompt: str) -> str:
        return self._dropped[prompt]

    def settings_of(self, request: Request) -> dict:
        return self._settings[request]


class RemotePainter:
    """In a worker: the model, open, and the batches of the file."""

    def __init__(
        self, load: Callable[[], Generator], batches: Sequence[Sequence[Request]], weights: str
    ):
        self._generator, self._batches = load(), batches
        if self._generator.weights_sha256() != weights:
            raise UserError(
                f"The machine {ray.util.get_node_ip_address()} has other weights under this name. "
                "Give all machines the same model."
            )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        requests = self._batches[row["place"]]
        started = time.monotonic()
        pictures = list(self._generator.pictures(requests, batch_size=len(requests)))
        seconds = (time.monotonic() - started) / len(requests)
        return row | {"pictures": pictures, "seconds": seconds}


class RayPainter:
    """Spreads batches over the workers of a cluster, each of which has the model open."""

    def __init__(
        self, address: str, load: Callable[[], Generator], requests: Sequence[Request],
        workers: int | None,
    ):  # fmt: skip
        """`workers`: how many at most; None: as the cluster has room for. Raises UserError where
        there is no cluster, or its machines cannot open the model."""
        join(address)
        self._load = load
        kinds = ray.cluster_resources()
        gpus, cpus = int(kinds.get("GPU", 0)), int(kinds.get("CPU", 0))
        self._resources = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_cpus": 1}
        self._workers = min(workers or gpus or cpus, gpus or cpus) or 1
        with _told():
            described = ray.remote(**self._resources)(_described).remote(load, requests)
            if not ray.wait([described], timeout=PATIENCE_SECONDS)[0]:
                complain("No worker has opened the model yet: all may be busy. Still waiting ...")
            self.model: RemoteModel = ray.get(described)

    def drawn(self, batches: Sequence[Sequence[Request]], on_step: OnStep) -> Iterator[Drawn]:
        if not batches:
            return
        rows = ray.data.from_items(
            [{"place": place} for place in range(len(batches))],
            override_num_blocks=min(len(batches), MAX_BLOCKS),
        )
        drawn = rows.map(
            RemotePainter,
            fn_constructor_args=(self._load, batches, self.model.weights_sha256()),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=self._workers),
            max_task_retries=MAX_TRIES,
            **self._resources,
        )
        with _told():
            for row in drawn.iter_rows():
                yield row["place"], row["pictures"], row["seconds"]


def join(address: str) -> None:
    """Become part of a cluster. Raises UserError where there is none."""
    if address != "auto" and not re.fullmatch(r"[\w.-]+:\d{1,5}", address, re.ASCII):
        raise UserError(
            f"--ray is {address!r:.100}. Give HOST:PORT of the cluster's head, or auto."
        )
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        raise UserError(
            f"--ray {address}: there is no cluster that lets this machine in "
            f"({reason_of(error):.200}). Start one with ray start --head, and give both the same "
            "RAY_AUTH_TOKEN."
        ) from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # each picture comes as soon as it is drawn


@contextmanager
def _told() -> Iterator[None]:
    """Raises UserError in place of Ray's errors: what a worker says is meant for this terminal."""
    try:
        yield
    except RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, UserError):
            raise UserError(str(cause)) from None
        raise UserError(
            f"The cluster could not go on ({reason_of(error):.300}). The same command draws the "
            "rest."
        ) from error


def _described(load: Callable[[], Generator], requests: Sequence[Request]) -> RemoteModel:
    return RemoteModel(load(), requests)
