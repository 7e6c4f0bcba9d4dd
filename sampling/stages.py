"""A generator of pictures on their way from noise to the finished one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sampling.generator import (
    DEFAULT_BATCH_SIZE,
    AppGenerator,
    OnPreview,
    OnStep,
    PictureGenerator,
)
from sampling.image import Picture
from sampling.request import Request


class StagesGenerator(PictureGenerator):
    """A generator that yields, for each request, the stages of its denoising."""

    def __init__(self, generator: AppGenerator, count: int):
        """`count`: images from pure noise to the finished one."""
        self.name, self._generator, self._count = generator.name, generator, count
        self.draws = generator.draws

    def dropped_words(self, prompt: str) -> str:
        return self._generator.dropped_words(prompt)

    def pictures(
        self, requests: Sequence[Request], on_step: OnStep | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE, on_preview: OnPreview | None = None,
    ) -> Iterator[Picture]:  # fmt: skip
        for request in requests:
            yield from self._generator.stages(request, self._count, on_step)
