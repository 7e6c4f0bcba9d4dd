"""How much sooner are several people's pictures there when they share their denoising steps?

    python -m benchmarks.side_by_side --model CompVis/stable-diffusion-v1-4 --device cuda

Some people ask for a picture each at the same time; the worker draws one after the other, then all
side by side, several times in turn. Ratios of one run, because machines are shared; the app draws
side by side on a GPU only.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from statistics import mean, median

from core.errors import exit_with_sentence
from sampling.generator import DEFAULT_MODEL, Generator
from sampling.request import Request
from webapp.queue import Client
from webapp.worker import Worker

PEOPLE = (1, 2, 4, 8)


def main() -> None:
    options = parse()
    generator = Generator.load(options.model, device=options.device)
    rows = []
    for people in PEOPLE:
        pairs = []
        for _ in range(options.rounds + 1):  # the first one warms up
            pairs.append([waits(generator, people, shared) for shared in (False, True)])
        alone, together = (
            {name: median(pair[side][name] for pair in pairs[1:]) for name in ("last", "mean")}
            for side in (0, 1)
        )
        rows.append({
            "people": people,
            "one_after_the_other_seconds": alone,
            "side_by_side_seconds": together,
            "times_as_fast": round(alone["last"] / together["last"], 2),
        })  # fmt: skip
        print(f"{people} people: side by side {rows[-1]['times_as_fast']} times as fast")
    print(
        json.dumps({"device": generator.device, "dtype": generator.dtype, "rows": rows}, indent=2)
    )


def waits(generator: Generator, people: int, side_by_side: bool) -> dict[str, float]:
    """Seconds until the last of them has his picture, and in the mean."""
    generator.draws_side_by_side = side_by_side
    worker, seconds = Worker(generator), []
    started = time.perf_counter()

    def wait(job) -> None:
        list(job)
        seconds.append(time.perf_counter() - started)

    jobs = [
        worker.submit(
            [Request("a red creature with wings", seed=seed)], Client(name=f"person {seed}")
        )
        for seed in range(people)
    ]
    threads = [threading.Thread(target=wait, args=[job]) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"last": round(max(seconds), 3), "mean": round(mean(seconds), 3)}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default=DEFAULT_MODEL, help="folder or hub id (the bundled one)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or mps (the best there is)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_sentence(main)
