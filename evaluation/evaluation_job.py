"""Drawing and scoring the prompts of an evaluation by one model, in one or several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.distributed import Processes
from evaluation.image_scorer import ImageScorer
from evaluation.prompts import SEED_STRIDE, PromptSet
from evaluation.scores import ModelScores, PromptScore
from sampling.few_steps import OF_DRAWING
from sampling.request import SEEDS, Request

if TYPE_CHECKING:
    from tqdm import tqdm

    from sampling.generator import Generator

MANY = 32  # prompts, from which on one picture each is enough


@dataclass(frozen=True)
class EvaluationJob:
    """How every model draws, and what scores its pictures."""

    image_scorer: ImageScorer
    request: Request  # common to all requests
    processes: Processes
    images_per_prompt: int | None = None  # None: by the number of prompts
    batch_size: int = 8
    folder: Path | None = None  # where pictures are saved
    progress: bool = False  # shown even where the output is no terminal
    as_made: bool = False  # a model for few steps draws with its own settings

    def request_of(self, generator: Generator) -> Request:
        """What is common to all requests of a model."""
        return replace(self.request, **generator.draws if self.as_made else {})

    def identity(self, generator: Generator, prompts: PromptSet) -> dict:
        """Everything that decides a score, except the model: equal for scores that compare."""
        drawing = {k: v for k, v in generator.settings.items() if k not in ("model", "run_id")}
        scoring, request = self.image_scorer.identity, self.request_of(generator)
        own = {"draws_with": "its own settings"} if request != self.request else {}
        return own | {
            **drawing,
            **scoring,
            **prompts.identity,
            "device": generator.device.partition(":")[0],
            "versions": drawing["versions"] | scoring["versions"],
            "images_per_prompt": self.images_of(prompts),
            "seed": self.request.seed,
            "seed_stride": SEED_STRIDE,
            **{name: getattr(request, name) for name in OF_DRAWING},
            **request.unusual,
            "width": generator.size,
            "height": generator.size,
        }

    def images_of(self, prompts: PromptSet) -> int:
        """Pictures per prompt: many prompts make more of them unnecessary."""
        return self.images_per_prompt or (1 if len(prompts.prompts) >= MANY else 4)

    def requests(self, generator: Generator, prompts: PromptSet) -> list[Request]:
        """One request per prompt, whose seeds depend only on its position."""
        common = replace(self.request_of(generator), num_images=self.images_of(prompts))
        return [
            replace(common, prompt=prompt, seed=(common.seed + place * SEED_STRIDE) % SEEDS)
            for place, prompt in enumerate(prompts.prompts)
        ]

    def scores(self, generator: Generator, role: str, prompts: PromptSet) -> ModelScores:
        """Draw this process's share of the prompts, and score each picture as it is drawn."""
        requests = self.requests(generator, prompts)
        size = max(1, self.batch_size // requests[0].num_images)
        parts = dict(enumerate(requests[i : i + size] for i in range(0, len(requests), size)))
        share = range(self.processes.index, len(parts), self.processes.count)
        mine = {number: parts[number] for number in share}
        with _progress_bar(generator, mine.values(), self.batch_size, self.progress) as bar:

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

    def _prompts(
        self, generator: Generator, requests: Sequence[Request],
        step_done: Callable[[int, int], bool], role: str,
    ) -> Iterator[PromptScore]:  # fmt: skip
        pictures = generator.pictures(requests, step_done, self.batch_size)
        folder = self.folder / role if self.folder else None
        for request in requests:
            scored = []
            for picture in islice(pictures, request.num_images):
                scored.append(
                    self.image_scorer.score(
                        picture.image, request.prompt, picture.seed, picture.problem
                    )
                )
                if folder:
                    folder.mkdir(parents=True, exist_ok=True)
                    picture.save(folder / picture.file_name)
            yield PromptScore(request.prompt, tuple(scored))


def _progress_bar(
    generator: Generator, parts: Iterable[Sequence[Request]], batch_size: int, always: bool
) -> tqdm:
    """Over all denoising steps of these requests."""
    from tqdm import tqdm

    steps = (
        -(-sum(request.num_images for request in part) // batch_size) * part[0].steps
        for part in parts
    )
    about = f"drawing with {generator.name}"
    hidden = False if always else None  # where the output is no terminal
    return tqdm(total=sum(steps), desc=about, unit="step", leave=False, disable=hidden)
