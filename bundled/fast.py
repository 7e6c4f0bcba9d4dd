"""The recipe of the LoRA by which the bundled model draws in four steps.

    python -m bundled.fast captions --output outputs/captions
    python train_text_to_image.py --pretrained_model_name_or_path sd-pokemon-model \\
        --train_data_dir outputs/captions --resolution 128 --distill 4 --distill_substeps 3 \\
        --train_batch_size 4 --max_train_steps 300 --learning_rate 2e-4 --lr_scheduler cosine \\
        --use_ema --ema_decay 0.98 --held_out 0.01 --validation_steps 100 --save_dtype fp32 \\
        --output_dir outputs/few-steps
    python -m bundled.fast lora --student outputs/few-steps

The first writes captions of creatures and of things (with pictures, which do not count), the second
teaches all weights, half an hour on two cores, and the third puts what they learned into
`sd-pokemon-model/fast` as a LoRA: of the difference of each layer the largest singular values.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from bundled.creatures import draw, write_folder
from core.bounded_json import loads, read
from core.errors import UserError, exit_with_sentence
from core.files import replaced
from core.paths import ROOT
from core.tensor_names import LORA_FILE
from core.terminal import say

if TYPE_CHECKING:
    import torch

MODEL = ROOT / "sd-pokemon-model"
CAPTIONS, FIRST = 2400, 7_000_000  # of creatures, by numbers that no other set has
THINGS = ROOT / "bundled" / "prior_prompts.txt"
RANK = 16
OF_RUN = ("run_id", "created", "steps", "draws", "teacher")  # that the LoRA's run.json keeps


def write_captions(folder: Path) -> int:
    """A data set in which every third caption is of things; returns how many there are."""
    things = [line for line in THINGS.read_text().splitlines() if line and line[0] != "#"]
    count = write_folder(folder, (draw("pokemon", FIRST + n) for n in range(CAPTIONS)))
    file = folder / "metadata.jsonl"
    rows = [loads(line) for line in file.read_text().splitlines()]
    for row, thing in zip(rows, things, strict=False):
        row["text"] = thing
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return count


def low_rank(difference: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B of a LoRA layer, whose product is the nearest of that rank to a difference of weights
    (Eckart and Young 1936): O,I or O,I,h,w -> R,I or R,I,h,w and O,R or O,R,1,1."""
    import torch

    flat = difference.flatten(1).double()
    u, s, v = torch.linalg.svd(flat, full_matrices=False)
    rank, root = min(rank, len(s)), s.sqrt()
    a, b = root[:rank, None] * v[:rank], u[:, :rank] * root[:rank]
    if difference.ndim == 4:
        a, b = a.reshape(rank, *difference.shape[1:]), b[..., None, None]
    return a.to(difference.dtype), b.to(difference.dtype)


def extract(student: Path, teacher: Path = MODEL, rank: int = RANK) -> dict[str, torch.Tensor]:
    """The LoRA of what a student has learned, in diffusers' layout and in float16."""
    import torch
    from diffusers import UNet2DConditionModel

    before, after = (
        UNet2DConditionModel.from_pretrained(model / "unet", dtype=torch.float32)
        for model in (teacher, student)
    )
    found: dict[str, torch.Tensor] = {}
    for name, layer in after.named_modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            difference = (layer.weight - before.get_submodule(name).weight).detach()
            for part, matrix in zip("AB", low_rank(difference, rank), strict=True):
                found[f"unet.{name}.lora_{part}.weight"] = matrix.half().contiguous()
    return found


def write_lora(student: Path) -> Path:
    """`sd-pokemon-model/fast` from a student's folder. Raises UserError where that is none."""
    from safetensors.torch import save_file

    if not (student / "run.json").is_file():
        raise UserError(f"--student: {student} is no model that was trained with --distill.")
    run = read(student / "run.json")
    tensors = extract(student)
    with replaced(MODEL / "fast") as staged:
        staged.mkdir()
        save_file(tensors, staged / LORA_FILE, {"format": "pt"})
        kept = {name: run[name] for name in OF_RUN}
        (staged / "run.json").write_text(json.dumps(kept | {"rank": RANK}, indent=2) + "\n")
    return MODEL / "fast"


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the LoRA for four steps.")
    steps = parser.add_subparsers(dest="step", required=True)
    captions = steps.add_parser("captions")
    captions.add_argument("--output", type=Path, required=True, help="folder to write; must be new")
    lora = steps.add_parser("lora")
    lora.add_argument("--student", type=Path, required=True, help="what --distill has trained")
    options = parser.parse_args()
    if options.step == "captions":
        say(f"{write_captions(options.output)} captions in {options.output}")
    else:
        say(f"The LoRA is in {write_lora(options.student)}.")


if __name__ == "__main__":
    exit_with_sentence(main)
