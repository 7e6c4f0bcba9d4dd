"""How long does a picture take, beside diffusers' pipeline as its users call it?

    python -m benchmarks.generation
    python -m benchmarks.generation --size v1-4 --timed_steps 6 --rounds 1
    python -m benchmarks.generation --size v1-4 --device cuda --upstream DIFFUSERS_SCRIPT

draws the same words and seed by every row of ROWS: in turn, each in a process of its own, after a
picture that does not count. `--timed_steps N` draws pictures of N steps, and reckons from the time
of each what a whole one takes. v1-4 is the size of Stable Diffusion v1-4, with random weights that
are made on first use (2 GB in --work): 24 GB of memory, patience. Beside them runs a matrix
product, and a convolution: what this device can do. Results: a table, and JSON. `uptime` should
show nothing else at work.

On a GPU, in fp16: the rows by PyTorch, the pictures of 1 to 8 people who draw side by side, and
with `--upstream` our training beside that script of diffusers (see benchmarks/training.py).

Tiers. T0: the same mathematics, and so the same picture. T1: another solver, in fewer steps, the
last without guidance. T2: not the same picture: deep features used again, or a model that was
taught to draw in few steps (docs/speed.md and docs/few_steps.md say what that costs).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from benchmarks.generation_row import GUIDANCE
from core.errors import UserError, exit_with_sentence
from core.few_steps import FEW_STEPS
from core.paths import ROOT

SIDES = {"bundled": 128, "v1-4": 512}  # pixels
MIN_TIMED = 6  # steps: of each kind of them one whose beginning is known
USERS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Row:
    """A way to draw the picture."""

    name: str
    tier: str
    steps: int
    backend: str = ""  # "": the pipeline of diffusers, as it is called
    scheduler: str = ""  # "": the model's own
    fast: bool = False  # by the model's LoRA for few steps
    guidance_stop: float = 1.0
    cache_interval: int = 1

    @property
    def title(self) -> str:
        told = [self.name, f"{self.steps} steps", self.scheduler]
        told += [f"guidance up to {self.guidance_stop}"] * (self.guidance_stop < 1)
        told += [f"whole UNet every {self.cache_interval}"] * (self.cache_interval > 1)
        return ", ".join(filter(None, told))

    @property
    def settings(self) -> dict:
        """Of a Request; of the pipeline of diffusers, its steps."""
        if not self.backend:
            return {"steps": self.steps}
        return {
            "steps": self.steps,
            "guidance_scale": 1.0 if self.fast else GUIDANCE,
            "scheduler": self.scheduler,
            "guidance_stop": self.guidance_stop,
            "cache_interval": self.cache_interval,
        }

    def calls(self, size: str) -> int:
        """Of the UNet. PNDM, which Stable Diffusion v1-4 comes with, has one more than steps."""
        return self.steps + (size == "v1-4" and not self.scheduler)


STOP, CACHED = 0.6, 2  # docs/speed.md: what they cost
ROWS = (
    Row("diffusers", "", 50),
    Row("ours, PyTorch", "T0", 50, "torch", "DDIM"),
    Row("ours, OpenVINO", "T0", 50, "openvino", "DDIM"),
    Row("ours, PyTorch", "T1", 20, "torch", "DPM++ 2M"),
    Row("ours, OpenVINO", "T1", 20, "openvino", "DPM++ 2M"),
    Row("ours, OpenVINO", "T1", 20, "openvino", "DPM++ 2M", guidance_stop=STOP),
    Row("ours, OpenVINO", "T2", 20, "openvino", "DPM++ 2M", False, STOP, CACHED),
    Row("ours, fast, PyTorch", "T2", 4, "torch", FEW_STEPS, fast=True),
    Row("ours, fast, OpenVINO", "T2", 4, "openvino", FEW_STEPS, fast=True),
)


def rows_of(device: str) -> list[Row]:
    """All rows; on a GPU those by PyTorch."""
    if device == "cpu":
        return list(ROWS)
    by_torch = (
        replace(row, name=row.name.replace("OpenVINO", "PyTorch"), backend=row.backend and "torch")
        for row in ROWS
    )
    return list(dict.fromkeys(by_torch))


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def device_name(device: str) -> str:
    if device == "cpu":
        return processor()
    import torch

    return torch.cuda.get_device_name(device)


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
    model, rows = model_of(options.size, options.work), rows_of(options.device)
    found: list[list[dict]] = [[] for _ in rows]
    for number in range(options.rounds):
        for place, row in enumerate(rows):
            picture = options.work / f"{place}.png"
            found[place].append(in_process(
                backend=row.backend, settings=row.settings, fast=row.fast, model=model,
                calls=row.calls(options.size), picture=str(picture), device=options.device,
                timed_steps=options.timed_steps,
            ))  # fmt: skip
            taken = median(found[place][-1]["seconds"])
            print(f"round {number + 1}, {row.title}: {taken:.2f} s", flush=True)
    return [summary(row, runs) for row, runs in zip(rows, found, strict=True)]


def summary(row: Row, runs: Sequence[dict]) -> dict:
    guided = 0 if row.fast else row.guidance_stop
    return {
        "name": row.title,
        "tier": row.tier,
        "rows": 1 + guided,  # of a call of the UNet, on average
        "cached": row.cache_interval > 1,
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
        share = row["rows"] / 2 * flops / row["step_seconds"] / able["matrix_product"]
        shown = "" if row["cached"] else f"{share:.0%}"  # where all layers are computed
        off = f"{row['off_by']:.4f}" if "off_by" in row else ""
        lines.append(
            f"| {row['name']} | {row['tier']} | {row['seconds']:.2f} | "
            f"{rows[0]['seconds'] / row['seconds']:.2f} | {row['step_seconds']:.3f} | "
            f"{row['memory_bytes'] / 2**30:.2f} | {shown} | {off} |"
        )
    return "\n".join(lines)


def side_by_side_table(found: Sequence[dict]) -> str:
    lines = ["| people | s for a picture of each | pictures a second | peak memory, GiB |",
             "| --- " * 4 + "|"]  # fmt: skip
    for each in found:
        lines.append(
            f"| {each['users']} | {each['seconds']:.2f} | {each['users'] / each['seconds']:.2f} | "
            f"{each['memory_bytes'] / 2**30:.2f} |"
        )
    return "\n".join(lines)


def on_a_gpu(options: argparse.Namespace) -> dict:
    """The pictures of several people side by side, and training."""
    model = model_of(options.size, options.work)
    found = [in_process(model=model, device=options.device, users=users, steps=20)
             for users in USERS]  # fmt: skip
    print(f"\n{side_by_side_table(found)}")
    if options.upstream:
        preset = "bundled" if options.size == "bundled" else "v1-4-512"
        written = options.output.with_suffix(".training.json")
        subprocess.run([
            sys.executable, "-m", "benchmarks.training", "--upstream", str(options.upstream),
            "--preset", preset, "--steps", "43", "--rounds", "1", "--precision", "fp16",
            "--work", str(options.work), "--output", str(written),
        ], cwd=ROOT, check=True)  # fmt: skip
    return {"side_by_side": found}


def main() -> None:
    options = parse()
    rows = measured(options)
    if options.size == "bundled" and not options.timed_steps:  # not of random weights
        for place, row in enumerate(rows):
            row["off_by"] = off_by(options.work / "0.png", options.work / f"{place}.png")
    able = in_process(model=model_of(options.size, options.work), device=options.device)
    about = {
        "size": options.size, "side": SIDES[options.size], "processor": device_name(options.device),
        "load": os.getloadavg()[0], "guidance_scale": GUIDANCE,
        "timed_steps": options.timed_steps or None,
    }  # fmt: skip
    print(f"\n{options.size}, {SIDES[options.size]} px, {about['processor']}\n")
    print(table(rows, able["step_flops"], able))
    more = on_a_gpu(options) if options.device != "cpu" else {}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    content = about | able | {"rows": rows} | more
    options.output.write_text(json.dumps(content, indent=2) + "\n")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--size", choices=SIDES, default="bundled")
    add("--device", default="cpu", help="cpu, or a GPU, as in cuda (%(default)s)")
    add("--rounds", type=int, default=3, help="of all rows in turn (%(default)s)")
    add("--timed_steps", type=int, default=0, help="reckon a picture from so many, 6 or more (0: "
        "draw it)")  # fmt: skip
    add("--upstream", type=Path, help="diffusers' train_text_to_image.py, to train beside on a GPU")
    add("--work", type=Path, default=Path("outputs/benchmark-generation"))
    add("--output", type=Path, default=Path("outputs/generation.json"))
    options = parser.parse_args(arguments)
    if options.timed_steps and options.timed_steps < MIN_TIMED:
        raise UserError(f"--timed_steps is {options.timed_steps}. Give {MIN_TIMED} or more.")
    return options


if __name__ == "__main__":
    exit_with_sentence(main)
