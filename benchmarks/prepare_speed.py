"""How much of plain Pillow's speed does prepare_dataset.py keep, with all that it checks?

    python -m benchmarks.prepare_speed

draws photographs of noise and gradients, then reduces them to 1024 px twice, on all cores: by
nothing but Pillow's open, thumbnail and save, and by the whole of prepare_dataset.py. Both in turn,
several times; the best of each counts. Results: a table, and JSON beside it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, redirect_stdout
from pathlib import Path

import numpy as np
from PIL import Image

import prepare_dataset
from core.errors import exit_with_sentence
from data.images import ImageFormat
from data.index import RowIndex
from data.source_detection import open_source

USUAL = ImageFormat()
BAR = 0.85


def photograph(seed: int) -> Image.Image:
    """2000 x 1500 pixels of soft colours with fine grain, as a camera's: RGB."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    pixels = np.asarray(soft.resize((2000, 1500), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = rng.normal(0, 6, pixels.shape[:2])[..., None]
    return Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))


def write_photographs(folder: Path, count: int) -> None:
    folder.mkdir()
    with open(folder / "metadata.jsonl", "w") as metadata:
        for i in range(count):
            photograph(i).save(folder / f"{i}.jpg", quality=92)
            metadata.write(json.dumps({"file_name": f"{i}.jpg", "text": f"photograph {i}"}) + "\n")


def reduced(paths: tuple[Path, Path]) -> None:
    image = Image.open(paths[0])
    image.thumbnail((USUAL.max_side, USUAL.max_side), Image.Resampling.LANCZOS)
    image.save(paths[1], quality=USUAL.quality, subsampling=0)


def plain_pillow(source: Path, target: Path, pool: ProcessPoolExecutor) -> float:
    """Seconds of Pillow alone."""
    target.mkdir()
    started = time.perf_counter()
    list(pool.map(reduced, [(path, target / path.name) for path in source.glob("*.jpg")]))
    return time.perf_counter() - started


def ours(source: Path, target: Path) -> float:
    """Seconds of reading, checking, reducing, writing and reporting."""
    options = prepare_dataset.parse([str(source), "--output", str(target)])
    started = time.perf_counter()
    opened = open_source(str(source), prepare_dataset.read_options(options))
    with redirect_stdout(io.StringIO()), closing(opened), RowIndex() as index:
        prepare_dataset.prepare(opened, index, options, {})
    return time.perf_counter() - started


def measured(folder: Path, count: int, rounds: int) -> dict[str, float]:
    source, times = folder / "photographs", {"Pillow alone": [], "prepare_dataset.py": []}
    write_photographs(source, count)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        ours(source, folder / "warm")  # imports
        plain_pillow(source, folder / "warm too", pool)
        for number in range(rounds):
            times["Pillow alone"].append(plain_pillow(source, folder / f"plain-{number}", pool))
            times["prepare_dataset.py"].append(ours(source, folder / f"ours-{number}"))
            shutil.rmtree(folder / f"plain-{number}")
    return {name: count / min(seconds) for name, seconds in times.items()}


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        rates = measured(Path(folder), options.count, options.rounds)
    share = rates["prepare_dataset.py"] / rates["Pillow alone"]
    for name, rate in rates.items():
        print(f"{name:20} {rate:6.1f} pictures/s")
    print(f"prepare_dataset.py keeps {share:.0%} of Pillow's speed (bar: {BAR:.0%}).")
    result = {"pictures": options.count, "pictures_per_second": rates, "share": share}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=64, help="photographs (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("outputs/prepare_speed.json"))
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_sentence(main)
