"""Which way of tuning learns a style and keeps what the base model knew?

    python -m benchmarks.keeping

tunes the bundled base model on the 833 creatures in several ways, scores each by metrics.py (64
held-out captions for what is learned, 45 everyday prompts for what is kept), and prints a table of
differences from the base. Every way learns from 64 pictures a step. What lies in --work is not made
again. Results: the table, and JSON per way.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from core.errors import UserError, exit_with_sentence
from core.paths import ROOT

BASE = ROOT / "bundled" / "base-model"
UNET = Path("unet", "diffusion_pytorch_model.safetensors")
MUON = ("--optimizer", "muon", "--use_ema", "--ema_decay", "0.98", "--learning_rate")
WAYS = {  # name -> options of training; None: made of another one
    "the whole UNet": (*MUON, "0.005", "--train_batch_size", "64"),
    "... at a fifth of the rate": (*MUON, "0.001", "--train_batch_size", "64"),
    "... averaged with the base": None,
    "LoRA, rank 16": ("--method", "lora", "--rank", "16", "--learning_rate", "1e-3",
                      "--train_batch_size", "64"),
    "the whole UNet, rehearsing": (
        *MUON, "0.003", "--train_batch_size", "32", "--with_prior_preservation",
        "--prior_prompts", "bundled/prior_prompts.txt", "--num_class_images", "400",
        "--sample_batch_size", "8",
    ),
}  # fmt: skip


def main() -> None:
    options = parse()
    data = options.work / "creatures"
    if not data.exists():
        run("-m", "bundled.creatures", "--output", data, "--count", "833", "--seed", "0")
    print("| way | follows its prompts | keeps what the base knew | distance in style (CMMD) |")
    print("| --- | --- | --- | --- |")
    for number, (name, more) in enumerate(WAYS.items()):
        folder = options.work / f"way-{number}"
        if not folder.exists():
            if more:
                tune(data, folder, more, options.steps)
            else:
                average(options.work / "way-0", folder)
        print(row(name, scores(folder)), flush=True)


def tune(data: Path, folder: Path, more: tuple[str, ...], steps: int) -> None:
    run(
        "train_text_to_image.py", "--pretrained_model_name_or_path", BASE, "--train_data_dir", data,
        "--resolution", "128", "--center_crop", "--max_train_steps", str(steps),
        "--lr_scheduler", "cosine", "--lr_warmup_steps", "10", "--mixed_precision", "auto",
        "--seed", "0", "--output_dir", folder, *more,
    )  # fmt: skip


def average(tuned: Path, folder: Path) -> None:
    """Half way between the base and a model tuned from it (Wortsman et al. 2022)."""
    shutil.copytree(tuned, folder, ignore=shutil.ignore_patterns("*.html", "log.jsonl"))
    base, weights = load_file(BASE / UNET), load_file(tuned / UNET)
    mean = {name: ((base[name].float() + weights[name].float()) / 2).half() for name in weights}
    save_file(mean, folder / UNET, {"format": "pt"})


def scores(folder: Path) -> dict:
    """What metrics.py says, of the model beside its base."""
    output = folder / "scores.json"
    if not output.exists():
        run("metrics.py", "--model", folder, "--base", BASE, "--prompts", "held-out",
            "--keep_prompts", "things", "--output", output)  # fmt: skip
    return json.loads(output.read_text())


def row(name: str, found: dict) -> str:
    against = found["comparisons"][0]
    parts = (against, against["keeping"])
    told = [
        f"{part['mean_difference']:+.1f} ({part['interval_95'][0]:+.1f} to "
        f"{part['interval_95'][1]:+.1f})" for part in parts
    ]  # fmt: skip
    style = against["cmmd_difference"]["value"]
    return f"| {name} | {' | '.join(told)} | {style:+.2f} |"


def run(*words: object) -> None:
    """One of the project's programs."""
    command = [sys.executable, *map(str, words)]
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    if ended.returncode:
        raise UserError(f"{' '.join(command[1:3])} ended with code {ended.returncode}; see above.")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=280)
    parser.add_argument("--work", type=Path, default=Path("outputs/keeping"))
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_sentence(main)
