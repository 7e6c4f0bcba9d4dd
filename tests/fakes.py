"""A generator that draws without a model: quick, countable, and it can be held at a step."""

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence

from PIL import Image

from sampling.generator import DEFAULT_BATCH_SIZE, AppGenerator, OnPreview, OnStep
from sampling.image import Picture
from sampling.request import Cancelled, Request


class FakeGenerator(AppGenerator):
    """Draws a plain colour that depends on the prompt and the seed.

    `hold(step)` stops it before that step until `release()`; `steps` lists what it has done.
    """

    name = "fake-model"
    card = "# fake-model\n\nDraws <script>nothing</script> but colours."
    run = {"scores": {"held-out": {"clip_score": 31.25, "identity": {"scorer": "ViT-B-16/openai"}}}}  # noqa: RUF012  (a run.json, nobody changes it)

    def __init__(self):
        self._held_step: int | None = None
        self._go = threading.Event()
        self.step_seconds = 0.0
        self.steps: list[int] = []
        self.requests: list[Request] = []
        self.problem: str | None = None
        self.dark = False
        self.error: Exception | None = None

    def hold(self, step: int = 1) -> None:
        self._go.clear()
        self._held_step = step

    def release(self) -> None:
        self._held_step = None
        self._go.set()

    def tokens(self, prompt: str) -> tuple[int, int]:
        return len(prompt), 100

    def dropped_words(self, prompt: str) -> str:
        return prompt[100:]

    def pictures(
        self, requests: Sequence[Request], on_step: OnStep | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE, on_preview: OnPreview | None = None,
    ) -> Iterator[Picture]:  # fmt: skip
        self.requests += requests
        total = sum(request.steps for request in requests)
        for done in range(1, total + 1):
            if done == self._held_step:
                assert self._go.wait(120), "held for too long"
            time.sleep(self.step_seconds)
            if on_preview:
                on_preview([Image.new("RGB", (32, 32), (done * 10 % 256, 80, 80))])
            self.steps.append(done)
            if self.error:
                raise self.error
            if on_step and on_step(done, total):
                raise Cancelled
        for request in requests:
            for single in request.singles():
                yield self._picture(single)

    def _picture(self, request: Request) -> Picture:
        drawn = f"{request.prompt} {request.seed}{request.start or ''}"
        colour = hashlib.sha256(drawn.encode()).digest()[:3]
        settings = {
            "prompt": request.prompt,
            "seed": request.seed,
            "negative_prompt": request.negative_prompt,
            "steps": request.steps,
            "guidance_scale": request.guidance_scale,
            "width": request.width or 64,
            "height": request.height or 64,
            "scheduler": request.scheduler,
            "prompt_weights": request.prompt_weights,
            **request.start,
            **request.unusual,
            "model": self.name,
        }
        image = Image.new("RGB", (64, 64), (3, 2, 1) if self.dark else tuple(colour))
        return Picture(image, request.prompt, request.seed, self.problem, settings)
