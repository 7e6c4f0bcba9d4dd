"""The server of benchmarks/load.py: app.py's own, over a generator that only sleeps and counts.

    python -m benchmarks.load_server --port 7900 --step_seconds 0.05

GET /books says what the server itself has seen of the load; see `Books`.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from PIL import Image
from starlette.responses import JSONResponse
from starlette.routing import Route

import app
import webapp.ui.image_store
import webapp.worker
from sampling.generator import DEFAULT_BATCH_SIZE, AppGenerator, OnPreview, OnStep
from sampling.image import Picture
from sampling.request import Cancelled, Request
from webapp.queue import MAX_JOBS_OF_CLIENT, MAX_SHARED_JOBS, Busy, FairQueue

SIDE = 64  # pixels of a picture


def colour_of(prompt: str, seed: int) -> tuple[int, ...]:
    """What a picture is painted with: nobody else's has the same."""
    return tuple(hashlib.sha256(f"{seed} {prompt}".encode()).digest()[:3])


class Books:
    """What the server sees. Written by one thread at a time, under the worker's lock or alone."""

    def __init__(self):
        self.inside = self.most_inside = 0  # calls of the generator at once
        self.most_waiting = 0
        self.outcomes: Counter[str] = (
            Counter()
        )  # jobs that met a busy worker: "admitted", "refused"
        self.wrong: list[str] = []  # admissions and refusals against the rules, as sentences


class SleepingGenerator(AppGenerator):
    """Sleeps through every step and paints its pictures in the colours of prompt and seed."""

    name = "sleeping-model"
    size = SIDE

    def __init__(self, step_seconds: float, books: Books):
        self._step_seconds, self._books = step_seconds, books

    def dropped_words(self, prompt: str) -> str:
        return ""

    def tokens(self, prompt: str) -> tuple[int, int]:
        return len(prompt.split()), 75

    def pictures(
        self, requests: Sequence[Request], on_step: OnStep | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE, on_preview: OnPreview | None = None,
    ) -> Iterator[Picture]:  # fmt: skip
        books = self._books
        books.inside += 1
        books.most_inside = max(books.most_inside, books.inside)
        try:
            total = sum(request.steps for request in requests)
            for done in range(1, total + 1):
                time.sleep(self._step_seconds)
                if on_preview:
                    on_preview([Image.new("RGB", (SIDE // 2, SIDE // 2), (done % 256, 80, 80))])
                if on_step and on_step(done, total):
                    raise Cancelled
            for request in requests:
                yield from (self._painted(request, seed) for seed in request.seeds)
        finally:
            books.inside -= 1

    def _painted(self, request: Request, seed: int) -> Picture:
        settings = {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "seed": seed,
            "steps": request.steps,
            "guidance_scale": request.guidance_scale,
            "width": SIDE,
            "height": SIDE,
            "scheduler": request.scheduler,
            "model": self.name,
        }
        image = Image.new("RGB", (SIDE, SIDE), colour_of(request.prompt, seed))
        return Picture(image, request.prompt, seed, None, settings)


class WatchedQueue(FairQueue):
    """A queue that checks itself against its rules: nobody too many, nobody refused too early.

    The load's jobs are small, so that only numbers count here and never cost; and they all come
    from one address.
    """

    books: Books

    def add(self, job) -> None:
        waiting = list(self)
        mine = sum(each.client == job.client for each in waiting)
        full = len(waiting) >= MAX_SHARED_JOBS or mine >= MAX_JOBS_OF_CLIENT
        state = f"with {mine} of {'/'.join(job.client)}'s jobs and {len(waiting)} in all waiting"
        try:
            super().add(job)
        except Busy:
            self.books.outcomes["refused"] += 1
            if not full:
                self.books.wrong.append(f"A job was refused {state}.")
            raise
        self.books.outcomes["admitted"] += 1
        self.books.most_waiting = max(self.books.most_waiting, len(self))
        if full:
            self.books.wrong.append(f"A job was admitted {state}.")


def build(step_seconds: float, most_bytes: int):
    """The app over a sleeping generator, with a route to its books."""
    books = Books()
    WatchedQueue.books = books
    webapp.worker.FairQueue = WatchedQueue  # type: ignore[misc]  # watched in its place
    webapp.ui.image_store.MAX_KEPT_BYTES = most_bytes
    demo = app.build_app(SleepingGenerator(step_seconds, books))
    demo.own_routes.append(Route("/books", lambda _: JSONResponse(vars(books))))
    return demo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--step_seconds", type=float, required=True)
    parser.add_argument("--most_bytes", type=int, required=True, help="of pictures that are kept")
    options = parser.parse_args()
    demo = build(options.step_seconds, options.most_bytes)
    app.serve(demo, "127.0.0.1", options.port)
    demo.block_thread()


if __name__ == "__main__":
    main()
