"""Folders of training runs as the training script and the page leave them, without training."""

import json
import os
from pathlib import Path

from PIL import Image

from sampling.image import Picture
from webapp.runs.folder import RunFolder, Teaching

GONE = {"pid": 2**30, "started": 1.0}  # a process that has ended long ago
SETTINGS = {
    "negative_prompt": "", "steps": 20, "scheduler": "DPM++ 2M", "guidance_scale": 7.5,
    "width": 64, "height": 64, "model": "a model",
}  # fmt: skip
OPTIONS = ("--train_batch_size", "4", "--max_train_steps", "200", "--learning_rate", "1e-3")


def teaching(name: str, **values) -> Teaching:
    usual = {"created": "2026-01-01T00:00:00+00:00", "kind": "style", "preset": "quick",
             "pictures": "chalk", "options": OPTIONS}  # fmt: skip
    return Teaching(name, **{**usual, **values})


def make_run(runs: Path, name: str, steps: int = 0, taught: bool = True, **values) -> RunFolder:
    """A run that has logged up to a step, and saved a checkpoint there."""
    folder = RunFolder(runs / name)
    folder.path.mkdir(parents=True)
    if taught:
        folder.write(teaching(name, **values))
    if steps:
        log(folder, *({"step": step, "loss": 1 / step} for step in range(1, steps + 1)))
        (folder.path / f"checkpoint-{steps}").mkdir()
    return folder


def log(folder: RunFolder, *records: dict) -> None:
    with (folder.path / "log.jsonl").open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def process(folder: RunFolder, name: str = "process.json", **values) -> None:
    (folder.path / name).write_text(json.dumps(GONE | {"steps": 200} | values))


def finish(folder: RunFolder, steps: int, **values) -> None:
    """The model of a run, which is the last thing that it writes."""
    run = {"steps": steps, "options": {"learning_rate": 0.001, "seed": 0}, **values}
    (folder.path / "run.json").write_text(json.dumps(run))
    (folder.path / "process.json").unlink(missing_ok=True)


def sample(folder: RunFolder, step: int, number: int = 0, prompt: str = "a fox", seed: int = 7):
    """A validation picture, of a colour of its own."""
    path = folder.path / "validation" / f"step-{step:06}-{number}.png"
    path.parent.mkdir(exist_ok=True)
    image = Image.new("RGB", (64, 64), (step % 256, 40 * number, 200))
    settings = SETTINGS | {"prompt": prompt, "seed": seed}
    Picture(image, prompt, seed, None, settings).save(path)
    return path


def age(path: Path, seconds: float) -> None:
    """As if it had been written so much earlier."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))
