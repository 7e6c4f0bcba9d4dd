"""How fast is our training script beside diffusers' own, at the same options?

    python -m benchmarks.training --upstream path/to/diffusers/train_text_to_image.py

runs both as they are, in turn, several times: same model, data, batch, precision and steps. What
counts is the time from the end of one step to the end of the next, after the first few; the median
of each. Peak memory is that of the whole process. Both learn from the same pictures with noise of
their own, so their mean losses agree within their standard errors. Results: a table, and JSON.

`--preset v1-4-256` and `v1-4-512` do it for a model of the size of Stable Diffusion v1-4 (with
random weights, made on first use, 2 GB in --work): 24 GB of memory and patience.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, stdev

import torch

from core.errors import UserError, exit_with_sentence
from core.paths import ROOT
from core.precision import fastest_precision

WARM_UP = 3  # steps that do not count

# Runs a script as it is and notes when each of its steps was logged, and the loss.
NOTED = """
import json, runpy, sys, time
import accelerate
notes, plain = open(sys.argv[1], "a", buffering=1), accelerate.Accelerator.log
def log(self, values, step=None, **more):
    if "train_loss" in values:
        note = {"time": time.perf_counter(), "loss": values["train_loss"]}
        notes.write(json.dumps(note) + chr(10))
    return plain(self, values, step=step, **more)
accelerate.Accelerator.log = log
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True)
class Preset:
    """What both scripts are asked to do."""

    resolution: int
    batch: int
    steps: int
    more: tuple[str, ...] = ()


PRESETS = {
    "bundled": Preset(128, 16, 23),
    "v1-4-256": Preset(256, 1, 8),
    "v1-4-512": Preset(512, 1, 6, ("--gradient_checkpointing",)),
}


@dataclass(frozen=True)
class Measured:
    """One run of one script."""

    seconds: list[float]  # of each step that counts
    losses: list[float]
    memory_bytes: int  # at its peak
    whole_seconds: float


def run(command: list[str], notes: Path, read) -> Measured:
    """Run a training script; `read(notes)` gives the end of each step, in seconds, and its loss."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    started = time.perf_counter()
    said = Path(f"{notes.parent}.txt")
    with said.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise UserError(f"{command[-1]} failed:\n{said.read_text()[-2000:]}")
    ends, losses = read(notes)
    seconds = [after - before for before, after in pairwise(ends[WARM_UP - 1 :])]
    return Measured(seconds, losses, usage.ru_maxrss * 1024, time.perf_counter() - started)


def upstream(options, common: list[str], folder: Path) -> Measured:
    notes = folder / "notes.jsonl"

    def read(path: Path) -> tuple[list[float], list[float]]:
        lines = [json.loads(line) for line in path.open()]
        return [line["time"] for line in lines], [line["loss"] for line in lines]

    script = [sys.executable, "-c", NOTED, str(notes), str(options.upstream.resolve())]
    return run([*script, *common, "--output_dir", str(folder / "model")], notes, read)


def ours(options, common: list[str], folder: Path) -> Measured:
    def read(path: Path) -> tuple[list[float], list[float]]:
        lines = [json.loads(line) for line in path.open() if "learning_rate" in line]
        ends, now = [], 0.0
        for line in lines:
            now += line["seconds_per_step"]
            ends.append(now)
        return ends, [line["loss"] for line in lines]

    command = [sys.executable, "train_text_to_image.py", *common, *options.ours.split()]
    command += ["--caption_dropout", "0", "--log_every", "1", "--output_dir", str(folder / "model")]
    return run(command, folder / "model" / "log.jsonl", read)


def data_for(work: Path) -> Path:
    """64 pictures of the bundled data set, as an ImageFolder."""
    folder = work / "pictures"
    if not folder.exists():
        subprocess.run(
            [sys.executable, "-m", "bundled.creatures", "--output", str(folder), "--count", "64",
             "--seed", "0"], cwd=ROOT, check=True,
        )  # fmt: skip
    return folder


def model_for(preset: str, work: Path) -> Path:
    """The bundled base model, or one of the size of Stable Diffusion v1-4 with random weights."""
    if preset == "bundled":
        return ROOT / "bundled" / "base-model"
    folder = work / "v1-4-random"
    if not (folder / "model_index.json").exists():
        make_v1_4(folder)
    return folder


def make_v1_4(folder: Path) -> None:
    """A pipeline of the shapes of Stable Diffusion v1-4; its weights know nothing."""
    import torch
    from diffusers import (
        AutoencoderKL,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(ROOT / "bundled" / "base-model" / "tokenizer")
    marks = {
        name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
        num_attention_heads=12, **marks,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    scheduler = PNDMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    parts = [vae.half(), CLIPTextModel(text).half(), tokenizer, unet.half(), scheduler]
    StableDiffusionPipeline(
        *parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    ).save_pretrained(folder)


def measured(options) -> dict[str, list[Measured]]:
    """Both scripts in turn, `--rounds` times."""
    preset = PRESETS[options.preset]
    options.work.mkdir(parents=True, exist_ok=True)
    common = [
        *("--pretrained_model_name_or_path", str(model_for(options.preset, options.work))),
        *("--train_data_dir", str(data_for(options.work)), "--center_crop", "--seed", "0"),
        *("--resolution", str(preset.resolution), "--mixed_precision", options.precision),
        *("--train_batch_size", str(options.batch or preset.batch), "--learning_rate", "1e-6"),
        *("--max_train_steps", str(options.steps or preset.steps), *preset.more),
        *("--checkpointing_steps", "1000000", *options.both.split()),
    ]
    results = {"diffusers": [], "ours": []}
    for number in range(options.rounds):
        for name, script in (("diffusers", upstream), ("ours", ours)):
            folder = Path(tempfile.mkdtemp(dir=options.work))
            try:
                results[name].append(script(options, common, folder))
            finally:
                shutil.rmtree(folder)
            print(f"round {number + 1}, {name}: "
                  f"{median(results[name][-1].seconds):.3f} s a step", flush=True)  # fmt: skip
    return results


def summary(name: str, runs: list[Measured], batch: int) -> dict:
    seconds = median(step for each in runs for step in each.seconds)
    losses = [loss for each in runs for loss in each.losses]
    return {
        "script": name,
        "seconds_per_step": seconds,
        "pictures_per_second": batch / seconds,
        "memory_gib": max(each.memory_bytes for each in runs) / 2**30,
        "loss": mean(losses),
        "loss_standard_error": stdev(losses) / len(losses) ** 0.5,
        "whole_run_seconds": median(each.whole_seconds for each in runs),
    }


def main() -> None:
    options = parse()
    if not options.upstream.is_file():
        raise UserError(f"--upstream: there is no file {options.upstream}; give diffusers' script.")
    sha256 = hashlib.sha256(options.upstream.read_bytes()).hexdigest()
    results = measured(options)
    batch = options.batch or PRESETS[options.preset].batch
    rows = [summary(name, runs, batch) for name, runs in results.items()]
    ratio = rows[0]["seconds_per_step"] / rows[1]["seconds_per_step"]
    print(
        f"\n{options.preset}, batch {batch}, {options.precision}; diffusers' script {sha256[:12]}\n"
    )
    print("| script | s a step | pictures/s | peak memory, GiB | mean loss | whole run, s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row['script']} | {row['seconds_per_step']:.3f} | "
              f"{row['pictures_per_second']:.2f} | {row['memory_gib']:.2f} | {row['loss']:.3f} "
              f"± {row['loss_standard_error']:.3f} | {row['whole_run_seconds']:.0f} |")  # fmt: skip
    print(f"\nours is {ratio:.2f} times as fast")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    about = {"preset": options.preset, "batch": batch, "precision": options.precision}
    about |= {"upstream_sha256": sha256, "ratio": ratio, "scripts": rows}
    options.output.write_text(json.dumps(about, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--upstream", type=Path, required=True, help="diffusers' train_text_to_image.py")
    add("--preset", choices=PRESETS, default="bundled")
    add("--batch", type=int, help="pictures per step; unset: the preset's")
    add("--steps", type=int, help="of each run; unset: the preset's")
    add("--rounds", type=int, default=3, help="runs of each script")
    add("--precision", choices=("no", "bf16", "fp16"), help="unset: the fastest here")
    add("--both", default="", help="more options for both scripts, in quotes, such as --use_ema")
    add("--ours", default="", help="more options for ours alone, in quotes")
    add("--work", type=Path, default=Path("outputs/benchmark-training"))
    add("--output", type=Path, default=Path("outputs/training.json"))
    options = parser.parse_args()
    options.precision = options.precision or fastest_precision(
        "cuda" if torch.cuda.is_available() else "cpu"
    )
    return options


if __name__ == "__main__":
    exit_with_sentence(main)
