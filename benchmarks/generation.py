"""How long does a picture take, beside diffusers' pipeline as its users call it?

    python -m benchmarks.generation
    python -m benchmarks.generation --size v1-4 --timed_steps 2 --rounds 1

draws the same words and seed by every row of ROWS: in turn, each in a process of its own, after a
picture that does not count. `--timed_steps N` draws no whole pictures: after a first step N are
timed, and the decoder, and a picture is reckoned from them. v1-4 is the size of Stable Diffusion
v1-4, with random weights that are made on first use (2 GB in --work): 24 GB of memory, patience.
Beside them runs a matrix product, and a convolution: what this processor can do. Results: a table,
and JSON. `uptime` should show nothing else at work.

Tiers. T0: the same mathematics, and so the same picture. T1: another solver, in fewer steps. T2: a
model that was taught to draw in few steps (docs/few_steps.md says what that costs).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.generation_row import GUIDANCE
from core.errors import UserError, exit_with_sentence
from core.few_steps import FEW_STEPS
from core.paths import ROOT

SIDES = {"bundled": 128, "v1-4": 512}  # pixels


@dataclass(frozen=True)
class Row:
    """A way to draw the picture."""

    name: str
    tier: str
    steps: int
    backend: str = ""  # "": the pipeline of diffusers, as it is called
    scheduler: str = ""  # "": the model's own
    fast: bool = False  # by the model's LoRA for few steps

    @property
    def title(self) -> str:
        return f"{self.name}, {self.steps} steps{self.scheduler and f', {self.scheduler}'}"

    def calls(self, size: str) -> int:
        """Of the UNet. PNDM, which Stable Diffusion v1-4 comes with, has one more than steps."""
        return self.steps + (size == "v1-4" and not self.scheduler)


ROWS = (
    Row("diffusers", "", 50),
    Row("ours, PyTorch", "T0", 50, "torch", "DDIM"),
    Row("ours, OpenVINO", "T0", 50, "openvino", "DDIM"),
    Row("ours, PyTorch", "T1", 20, "torch", "DPM++ 2M"),
    Row("ours, OpenVINO", "T1", 20, "openvino", "DPM++ 2M"),
    Row("ours, fast, PyTorch", "T2", 4, "torch", FEW_STEPS, fast=True),
    Row("ours, fast, OpenVINO", "T2", 4, "openvino", FEW_STEPS, fast=True),
)


def rows_of(size: str) -> list[Row]:
    """Random weights have no LoRA that makes them draw in few steps."""
    return [row for row in ROWS if size == "bundled" or not row.fast]


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def in_process(**asked: object) -> dict:
    """The answer of benchmarks/generation_row.py."""
    command = [sys.executable, "-m", "benchmarks.generation_row", json.dumps(asked)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"{asked} failed; see above.")
    return json.loads(done.stdout.splitlines()[-1])


def model_of(size: str, work: Path) -> str:
    if size == "bundled":
        return str(ROOT / "sd-pokemon-model")
    from benchmarks.training import model_for

    return str(model_for("v1-4-512", work))


def measured(options: argparse.Namespace) -> list[dict]:
    """Each row's measurements, of all rounds."""
    options.work.mkdir(parents=True, exist_ok=True)
    model, rows = model_of(options.size, options.work), rows_of(options.size)
    found: list[list[dict]] = [[] for _ in rows]
    for number in range(options.rounds):
        for place, row in enumerate(rows):
            picture = options.work / f"{place}.png"
            found[place].append(in_process(
                **asdict(row), calls=row.calls(options.size), model=model, picture=str(picture),
                timed_steps=options.timed_steps,
            ))  # fmt: skip
            taken = median(found[place][-1]["seconds"])
            print(f"round {number + 1}, {row.title}: {taken:.2f} s", flush=True)
    return [summary(row, runs) for row, runs in zip(rows, found, strict=True)]


def summary(row: Row, runs: Sequence[dict]) -> dict:
    return {
        "name": row.title,
        "tier": row.tier,
        "seconds": median(each for run in runs for each in run["seconds"]),
        "step_seconds": median(run["step_seconds"] for run in runs),
        "memory_bytes": max(run["memory_bytes"] for run in runs),
    }


def off_by(one: Path, other: Path) -> float:
    """The mean difference of two pictures, of 255."""
    import numpy as np
    from PIL import Image

    a, b = (np.asarray(Image.open(path), float) for path in (one, other))
    return float(abs(a - b).mean())


def table(rows: Sequence[dict], flops: int, able: dict) -> str:
    """Markdown, with ratios to the first row."""
    lines = ["| | tier | s a picture | times as fast | s a step | peak memory, GiB | of the matrix "
             "product's speed | differs by, of 255 |", "| --- " * 8 + "|"]  # fmt: skip
    for row in rows:
        one_pass = row["tier"] == "T2"  # without guidance
        share = flops / (1 + one_pass) / row["step_seconds"] / able["matrix_product"]
        off = f"{row['off_by']:.4f}" if "off_by" in row else ""
        lines.append(
            f"| {row['name']} | {row['tier']} | {row['seconds']:.2f} | "
            f"{rows[0]['seconds'] / row['seconds']:.2f} | {row['step_seconds']:.3f} | "
            f"{row['memory_bytes'] / 2**30:.2f} | {share:.0%} | {off} |"
        )
    return "\n".join(lines)


def main() -> None:
    options = parse()
    rows = measured(options)
    if not options.timed_steps:
        for place, row in enumerate(rows):
            row["off_by"] = off_by(options.work / "0.png", options.work / f"{place}.png")
    able = in_process(model=model_of(options.size, options.work))
    about = {
        "size": options.size, "side": SIDES[options.size], "processor": processor(),
        "load": os.getloadavg()[0], "guidance_scale": GUIDANCE,
        "timed_steps": options.timed_steps or None,
    }  # fmt: skip
    print(f"\n{options.size}, {SIDES[options.size]} px, {about['processor']}\n")
    print(table(rows, able["step_flops"], able))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(about | able | {"rows": rows}, indent=2) + "\n")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--size", choices=SIDES, default="bundled")
    add("--rounds", type=int, default=3, help="of all rows in turn (%(default)s)")
    add("--timed_steps", type=int, default=0, help="reckon a picture from so many (0: draw it)")
    add("--work", type=Path, default=Path("outputs/benchmark-generation"))
    add("--output", type=Path, default=Path("outputs/generation.json"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    exit_with_sentence(main)
