"""Small training runs: a dozen pictures, options for the tiny model, and a start from clean."""

import json
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from PIL import Image

from training.config import Config
from training.dataset import CaptionedImages
from training.encode import encode_once
from training.model import load_model
from training.run import start_run
from training.weights import WEIGHTS

STARTED = []


def write_pictures(folder: Path, count: int = 12) -> Path:
    """An ImageFolder of small pictures, no two alike; every third has two captions."""
    folder.mkdir(parents=True)
    rows = []
    for i in range(count):
        noise = torch.randint(256, (34, 40, 3), generator=torch.Generator().manual_seed(i))
        Image.fromarray(noise.byte().numpy()).save(folder / f"{i}.png")
        text = [f"creature {i}", f"monster {i}"] if i % 3 == 0 else f"a drawing of creature {i}"
        rows.append({"file_name": f"{i}.png", "text": text})
    write_metadata(folder, rows)
    return folder


def add_picture(folder: Path, number: int, size: tuple[int, int] = (40, 34)) -> None:
    """One picture more, of `size` width and height."""
    shape = (size[1], size[0], 3)
    noise = torch.randint(256, shape, generator=torch.Generator().manual_seed(number))
    Image.fromarray(noise.byte().numpy()).save(folder / f"{number}.png")
    with (folder / "metadata.jsonl").open("a") as file:
        row = {"file_name": f"{number}.png", "text": f"a drawing of creature {number}"}
        file.write(json.dumps(row) + "\n")


def write_metadata(folder: Path, rows: list[dict]) -> None:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def config_for(model: str, tmp_path: Path, **options) -> Config:
    """Options of a short run from `model` on pictures in `tmp_path`/data."""
    data = tmp_path / "data"
    if not data.exists():
        write_pictures(data)
    usual = {
        "pretrained_model_name_or_path": model,
        "train_data_dir": str(data),
        "output_dir": str(tmp_path / "out"),
        "train_batch_size": 4,
        "max_train_steps": 3,
        "learning_rate": 1e-3,
        "mixed_precision": "no",
        "save_dtype": "fp32",
    }
    return Config(**usual | options)


# Adam's first steps are nearly the sign of the gradient, also of one that is rounding alone. With
# these its update is proportional to the gradient, so that what learns the same stays as near.
PROPORTIONAL = {"adam_epsilon": 1.0, "learning_rate": 0.1, "max_grad_norm": 1e6}


def fresh_run(config: Config):
    """A started run; an earlier one in this process is closed, and what accelerate kept of it
    forgotten."""
    while STARTED:
        STARTED.pop().close()
    AcceleratorState._reset_state(reset_partial_state=True)
    STARTED.append(start_run(config))
    return STARTED[-1]


def prepared(config: Config):
    """Run, learner and latents of `config`, ready to train."""
    run = fresh_run(config)
    images = CaptionedImages(config)
    model = load_model(config, run)
    latents = encode_once(images, model, run)
    return run, WEIGHTS[config.method](model, config), latents
