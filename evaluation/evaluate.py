"""Every model draws the same prompts with the same seeds, and the scorer looks at each picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation import results
from evaluation.distributed import Processes
from evaluation.prompts import SEED_STRIDE, PromptSet
from evaluation.scores import ModelScores, PromptScore
from sampling.request import SEEDS, Request

if TYPE_CHECKING:
    from sampling.generator import Generator

MANY = 32  # prompts, from which on one picture each is enough


@dataclass(frozen=True)
class EvaluationJob:
    """How every model is made to draw, and what looks at its pictures."""

    eyes: results.ImageScorer
    request: Request  # what all requests have in common
    processes: Processes
    images_per_prompt: int | None = None  # None: what suits the number of prompts
    batch_size: int = 8
    folder: Path | None = None  # where pictures are kept

    def identity(self, generator: Generator, prompts: PromptSet) -> dict:
        """All that decides a score, except the model: what must be equal to compare two."""
        drawing = {k: v for k, v in generator.settings.items() if k not in ("model", "run_id")}
        looking = self.eyes.identity
        return {
            **drawing,
            **looking,
            **prompts.identity,
            "device": generator.device.partition(":")[0],
            "versions": drawing["versions"] | looking["versions"],
            "images_per_prompt": self.images_of(prompts),
            "seed": self.request.seed,
            "seed_stride": SEED_STRIDE,
            "steps": self.request.steps,
            "guidance_scale": self.request.guidance_scale,
            "scheduler": self.request.scheduler,
            "width": generator.size,
            "height": generator.size,
        }

    def images_of(self, prompts: PromptSet) -> int:
        """Pictures per prompt: fewer where many prompts do the same for certainty."""
        return self.images_per_prompt or (1 if len(prompts.prompts) >= MANY else 4)

    def requests(self, prompts: PromptSet) -> list[Request]:
        """One request a prompt; its seeds follow from its place alone."""
        common = replace(self.request, num_images=self.images_of(prompts))
        return [
            replace(common, prompt=prompt, seed=(common.seed + place * SEED_STRIDE) % SEEDS)
            for place, prompt in enumerate(prompts.prompts)
        ]

    def scores(self, generator: Generator, role: str, prompts: PromptSet) -> ModelScores:
        """Draw all prompts, this process its share, and look at every picture as it comes."""
        requests = self.requests(prompts)
        several = max(1, self.batch_size // requests[0].num_images)
        parts = dict(enumerate(requests[i : i + several] for i in range(0, len(requests), several)))
        share = range(self.processes.index, len(parts), self.processes.count)
        mine = {number: parts[number] for number in share}
        with bar_of(generator, mine.values(), self.batch_size) as bar:

            def step_done(done: int, total: int) -> bool:
                bar.update()
                return False

            found = {
                number: tuple(self._prompts(generator, part, step_done, role))
                for number, part in mine.items()
            }
        found = self.processes.gathered(found)
        scored = tuple(score for number in sorted(found) for score in found[number])
        made = self.identity(generator, prompts)
        return ModelScores(generator.name, generator.run.get("run_id"), made, scored)

    def _prompts(self, generator, requests, step_done, role: str) -> Iterator[PromptScore]:
        pictures = generator.pictures(requests, step_done, self.batch_size)
        folder = self.folder / role if self.folder else None
        for request in requests:
            seen = []
            for picture in islice(pictures, request.num_images):
                seen.append(
                    self.eyes.look(picture.image, request.prompt, picture.seed, picture.problem)
                )
                if folder:
                    folder.mkdir(parents=True, exist_ok=True)
                    picture.save(folder / picture.file_name)
            yield PromptScore(request.prompt, tuple(seen))


def bar_of(generator: Generator, parts, batch_size: int):
    """A progress bar over all denoising steps of these parts of requests."""
    from tqdm import tqdm

    batches = (
        -(-sum(request.num_images for request in part) // batch_size) * part[0].steps
        for part in parts
    )
    total, about = sum(batches), f"drawing with {generator.name}"
    return tqdm(total=total, desc=about, unit="step", leave=False, disable=None)
