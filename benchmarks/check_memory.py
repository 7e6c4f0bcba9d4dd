"""Does the check of a data set need more memory the more rows there are?

    python -m benchmarks.check_memory

checks metadata of 10,000, 100,000 and 1,000,000 rows, each in a process of its own, and reads the
peak of its resident memory. Results: a table, and JSON beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from core.errors import exit_with_sentence

PICTURES = 1_000  # files that the rows share
SIDE = 32  # pixels


def write_rows(folder: Path, rows: int) -> None:
    """A folder of small pictures with metadata of so many rows, no two captions alike."""
    folder.mkdir()
    for i in range(PICTURES):
        pixels = np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    with open(folder / "metadata.jsonl", "w") as metadata:
        for i in range(rows):
            line = {"file_name": f"{i % PICTURES}.png", "text": f"a picture that is number {i}"}
            metadata.write(json.dumps(line) + "\n")


def checked(folder: Path) -> tuple[float, float]:
    """Peak of resident memory in MiB, and seconds, of a check in its own process."""
    command = [sys.executable, "prepare_dataset.py", str(folder), "--check", "--resolution", "32"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with code {process.returncode}.")
    return used.ru_maxrss / 1024, time.perf_counter() - started


def main() -> None:
    options = parse()
    results = []
    print("| rows | peak memory | seconds |\n| --- | --- | --- |")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as temporary:
            write_rows(Path(temporary) / "data", rows)
            memory, seconds = checked(Path(temporary) / "data")
        results.append({"rows": rows, "peak_mebibytes": memory, "seconds": seconds})
        print(f"| {rows:,} | {memory:.0f} MiB | {seconds:.0f} |", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--output", type=Path, default=Path("outputs/check_memory.json"))
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_sentence(main)
