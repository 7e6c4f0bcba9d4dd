"""Do last year's programs open what is written here, and draw the same?

    python -m benchmarks.interoperability

makes an environment with transformers 4.57, diffusers 0.35, peft 0.17 and LyCORIS, which opens LoRA
files in kohya's layout; torch is borrowed from this one. Both environments then draw with the
bundled models and with what the training script writes in a few steps: a fine-tune of UNet and text
encoder with a safety checker beside them, a merged LoRA, and the files of a LoRA with its alpha.
Results: a table, and JSON beside it; exit code 1 if a picture differs by more than rounding, if a
LoRA shows in no picture, or if a library warned of tensors or settings that it does not know.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import torch

from bundled.creatures import draw, write_folder
from core.errors import UserError, exit_with_sentence
from core.paths import ROOT
from core.tensor_names import KOHYA_FILE, LORA_FILE

BASE, BUNDLED_BASE = ROOT / "bundled" / "base-model", "bundled base model"
WITH_ALL_THEY_NEED = ("transformers==4.57.*", "diffusers==0.35.*", "psutil", "einops", "toml")
ALONE = ("peft==0.17.*", "accelerate==1.10.*", "lycoris-lora")  # they would bring another torch
ROUNDING = 1e-4  # of values in 0..1
SEEN = 1e-2  # by so much a LoRA has to change a picture
TRAINING = (
    *("--train_batch_size", "4", "--max_train_steps", "6", "--train_text_encoder"),
    *("--mixed_precision", "no", "--save_dtype", "fp32", "--seed", "0"),
)
LORA = ("--method", "lora", "--rank", "4", "--lora_alpha", "2", "--learning_rate", "1e-2")
RUNS = {
    "full": ("--learning_rate", "1e-4"),
    "lora": (*LORA, "--checkpointing_steps", "6"),
    "merged": (*LORA, "--merge_lora"),
}


def main() -> None:
    work = parse().work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    python = older_python(work / "environment")
    jobs = jobs_for(trained(work / "trained"))
    today, older = (
        read(each, jobs, work / name)
        for name, each in (("today", Path(sys.executable)), ("older", python))
    )
    rows = [compared(job["name"], work, older["said"]) for job in jobs]
    result = {"today": today["versions"], "older": older["versions"], "rows": rows}
    (work / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))
    if not all(row["right"] for row in rows):
        sys.exit(1)


def older_python(folder: Path) -> Path:
    """The interpreter of an environment with the older libraries, made where it is not there."""
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        install(python, *WITH_ALL_THEY_NEED)
        install(python, "--no-deps", *ALONE)
        # Found after the environment's own packages, so that only what it lacks comes from here.
        (own,) = folder.glob("lib/python*/site-packages")
        (own / "borrowed.pth").write_text(f"{Path(torch.__file__).parent.parent}\n")
        ready.touch()
    return python


def install(python: Path, *wanted: str) -> None:
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
    if subprocess.run(command).returncode:
        raise UserError(f"{' '.join(wanted)} cannot be installed. Check the package index.")


def trained(folder: Path) -> dict[str, Path]:
    """The folder of each of RUNS, trained anew, and of the base model that they began with."""
    shutil.rmtree(folder, ignore_errors=True)
    write_folder(folder / "data", (draw("pokemon", seed) for seed in range(16)))
    add_safety_checker(folder / "base")
    for name, options in RUNS.items():
        command = [
            *(sys.executable, "train_text_to_image.py", "--train_data_dir", folder / "data"),
            *("--pretrained_model_name_or_path", folder / "base", "--output_dir", folder / name),
            *TRAINING, *options,
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"The run '{name}' failed: {done.stderr[-500:]}")
    return {name: folder / name for name in ("base", *RUNS)}


def add_safety_checker(folder: Path) -> None:
    """A copy of the bundled base model with a small random safety checker, written as libraries
    write it today; it finds nothing unsafe."""
    from diffusers import StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    small["num_attention_heads"] = 2
    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=small, vision_config=small))
    pipe = StableDiffusionPipeline.from_pretrained(BASE)
    parts = {"safety_checker": checker, "feature_extractor": CLIPImageProcessor()}
    whole = StableDiffusionPipeline(**pipe.components | parts, requires_safety_checker=True)
    whole.save_pretrained(folder)


def jobs_for(folders: dict[str, Path]) -> list[dict]:
    """What is opened, and by whom."""
    lora = folders["lora"]
    files = {
        "LoRA, diffusers' file": (lora / LORA_FILE, "diffusers"),
        "LoRA, kohya's file": (lora / KOHYA_FILE, "diffusers"),
        "LoRA, checkpoint": (lora / "checkpoint-6" / KOHYA_FILE, "diffusers"),
        "LoRA, kohya's file by LyCORIS": (lora / KOHYA_FILE, "lycoris"),
    }
    models = {
        BUNDLED_BASE: BASE,
        "bundled fine-tuned model": ROOT / "sd-pokemon-model",
        "full fine-tune": folders["full"],
        "merged LoRA": folders["merged"],
    }
    return [
        *({"name": name, "model": str(model)} for name, model in models.items()),
        *(
            {"name": name, "model": str(BASE), "lora": str(file), "by": by}
            for name, (file, by) in files.items()
        ),
    ]


def read(python: Path, jobs: list[dict], folder: Path) -> dict:
    """What the reader says in that environment; its pictures are in `folder` afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if folder.name == "today":  # where CLIP has other names, LyCORIS finds no text encoder
        jobs = [job for job in jobs if job.get("by") != "lycoris"]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [python, ROOT / "benchmarks" / "interoperability_reader.py", folder / "jobs.json"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    if done.returncode:
        raise UserError(f"The reader failed with {python}: {done.stderr[-1000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compared(name: str, work: Path, said: dict[str, list[str]]) -> dict:
    """How far a job's pictures are from the one they ought to be, and whether that is rounding.

    All that a LoRA was written to has to draw what today's libraries draw with it merged.
    """
    right = picture(work / "today", "merged LoRA" if "LoRA" in name else name)
    plain = picture(work / "today", BUNDLED_BASE)
    older, today = (picture(work / side, name) for side in ("older", "today"))
    if older is None:
        return {"name": name, "warnings": said[name], "right": False}
    difference = max(far(each, right) for each in (older, today) if each is not None)
    from_base = far(older, plain)
    is_right = difference < ROUNDING and (name == BUNDLED_BASE or from_base > SEEN)
    return {
        "name": name, "warnings": said[name], "right": is_right and not said[name],
        "difference": difference, "from_base": from_base,
    }  # fmt: skip


def far(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


def picture(folder: Path, name: str) -> np.ndarray | None:
    path = folder / f"{name}.npy"
    return np.load(path) if path.exists() else None


def table(result: dict) -> str:
    """The rows as Markdown, under the versions."""
    older, today = (
        ", ".join(f"{name} {version}" for name, version in result[side].items())
        for side in ("older", "today")
    )
    lines = [f"Older: {older}", f"Today: {today}", ""]
    lines += ["| opened | largest difference | from the base | |", "| --- | --- | --- | --- |"]
    for row in result["rows"]:
        numbers = (f"{row[key]:.1e}" if key in row else "" for key in ("difference", "from_base"))
        word = "right" if row["right"] else f"WRONG {' '.join(row['warnings'])[:200]}"
        lines.append(f"| {row['name']} | {' | '.join(numbers)} | {word} |")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--work", type=Path, default=Path("outputs/interoperability"),
        help="folder for the environment, the models and the result (%(default)s)",
    )  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_sentence(main)
