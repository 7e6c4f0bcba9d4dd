"""Clients of a page that is killed under them: each asks for its own pictures, and asks again where
it gets no answer."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx
from PIL import Image

from benchmarks.load_server import colour_of

ANSWER_SECONDS = 60
MAX_RETRY_SECONDS = 1.0  # whatever Retry-After says: the load is to go on
PATIENCE_SECONDS = 300  # after which a request counts as lost


@dataclass
class Tally:
    """What the clients have seen."""

    answers: Counter[str] = field(default_factory=Counter)  # of each request, by its prompt
    wrong: list[str] = field(default_factory=list)  # as sentences
    again: Counter[str] = field(default_factory=Counter)  # reasons to ask again
    seconds: list[float] = field(default_factory=list)  # from a request to its picture
    asked: int = 0

    @property
    def lost(self) -> int:
        return self.asked - len(self.answers)

    @property
    def twice(self) -> int:
        return sum(count > 1 for count in self.answers.values())


class Clients:
    """So many programs that draw one picture after another until they are told to stop."""

    def __init__(self, url: str, count: int, steps: int, painted: bool = True):
        """`painted`: the colour of a picture tells whose it is."""
        self.tally, self._url, self._steps, self._painted = Tally(), url, steps, painted
        self._lock, self._over = threading.Lock(), threading.Event()
        self._threads = [
            threading.Thread(target=self._draw, args=(f"client-{n}",)) for n in range(count)
        ]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Each gets the picture that it waits for."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _draw(self, name: str) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            prompt = f"picture {number} of {name}"
            with self._lock:
                self.tally.asked += 1
            began = time.monotonic()
            while time.monotonic() - began < PATIENCE_SECONDS:
                if self._is_drawn(prompt, number, name):
                    self.tally.seconds.append(time.monotonic() - began)
                    break

    def _is_drawn(self, prompt: str, seed: int, name: str) -> bool:
        body = {"prompt": prompt, "seed": seed, "steps": self._steps}
        try:
            answer = httpx.post(
                f"{self._url}/api/generate", json=body, timeout=ANSWER_SECONDS,
                headers={"X-Client-Id": name},
            )  # fmt: skip
        except httpx.TransportError as error:
            return self._ask_again(type(error).__name__, "")
        if answer.status_code != 200:
            return self._ask_again(str(answer.status_code), answer.headers.get("Retry-After", ""))
        self._check(prompt, seed, answer.json()["images"])
        return True

    def _ask_again(self, reason: str, after: str) -> bool:
        with self._lock:
            self.tally.again[reason] += 1
        self._over.wait(min(float(after or 0.2), MAX_RETRY_SECONDS))
        return False

    def _check(self, prompt: str, seed: int, images: list[dict]) -> None:
        found = [Image.open(io.BytesIO(base64.b64decode(each["image"]))) for each in images]
        colours = [image.getpixel((0, 0)) for image in found]
        with self._lock:
            self.tally.answers[prompt] += 1
            if len(colours) != 1 or (self._painted and colours != [colour_of(prompt, seed)]):
                self.tally.wrong.append(f"{prompt} was answered with {colours}.")
