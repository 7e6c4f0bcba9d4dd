"""A folder that other servers run a model from: a repository of models, and how to call them.

models/unet/1/model.onnx      as Triton and OpenVINO Model Server look for it
models/unet/config.pbtxt      for Triton
examples/unet.request.json    a call in the Open Inference Protocol (KServe v2), and its answer
tokenizer/tokenizer.json      from words to the numbers that text_encoder takes
signature.json                inputs, outputs, scheduler, sizes
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from core.errors import UserError, reason_of
from core.files import replaced
from core.paths import is_folder, is_there
from exporting.summary import multiply_adds, parameters_by_group
from sampling.backends.choice import BACKENDS
from sampling.backends.formats import FORMATS, TOLERANCE, difference
from sampling.backends.parts import Part, Tensor, parts_of
from sampling.model_info import model_name
from sampling.pipeline import open_pipeline

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

DATATYPES = {"float32": "FP32", "int64": "INT64"}


def write_folder(model: str, target: Path, format_name: str) -> dict:
    """Write `model` to a new folder and compare each part with PyTorch; what signature.json says.

    Raises UserError, and leaves nothing behind, where that fails.
    """
    check_target(target, format_name)
    pipe = open_pipeline(model, "cpu", "fp32")
    check_scheduler(pipe)
    side = _latent_side(pipe)
    with replaced(target) as staged:
        staged.mkdir()
        signature = {
            "model": model_name(model),
            "format": format_name,
            "size": side * pipe.vae_scale_factor,
            "latents": [pipe.unet.config.in_channels, side, side],
            "tokens": pipe.tokenizer.model_max_length,
            "pad_token": pipe.tokenizer.pad_token_id,
            "scheduler": _scheduler(pipe),
            "parts": {p.name: _write_part(p, staged, format_name, pipe) for p in parts_of(pipe)},
        }
        pipe.tokenizer.save_pretrained(staged / "tokenizer")
        (staged / "signature.json").write_text(json.dumps(signature, indent=2) + "\n")
    return signature


def check_target(target: Path, format_name: str) -> None:
    """Raises UserError before a model is opened."""
    check_installed(format_name)
    if is_there(target):
        raise UserError(f"'{target}' is there already. Name another folder, or delete that one.")
    if not is_folder(target.parent):
        raise UserError(f"There is no folder '{target.parent}'. Make it, or name another.")


def check_installed(format_name: str) -> None:
    """Raises UserError where a package that the format needs is missing."""
    if missing := BACKENDS[format_name].missing:
        raise UserError(
            f"--format {format_name} needs packages that are not here ({', '.join(missing)}). "
            f"Install them: pip install {' '.join(BACKENDS[format_name].packages)}"
        )


def check_scheduler(pipe: StableDiffusionPipeline) -> None:
    """Raises UserError for a model whose scheduler signature.json could not describe."""
    kind = pipe.scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise UserError(f"The model predicts '{kind}', which is not described in an export.")


def _scheduler(pipe: StableDiffusionPipeline) -> dict:
    """All that DDIM (Song et al. 2021) needs."""
    from diffusers import DDIMScheduler

    ddim = DDIMScheduler.from_config(pipe.scheduler.config)
    return {
        "prediction_type": ddim.config.prediction_type,
        "steps_offset": ddim.config.steps_offset,
        "final_alpha": float(ddim.final_alpha_cumprod),
        "alphas_cumprod": ddim.alphas_cumprod.tolist(),
    }


def _write_part(
    part: Part, folder: Path, format_name: str, pipe: StableDiffusionPipeline
) -> dict[str, Any]:
    kind, place = FORMATS[format_name], folder / "models" / part.name
    (place / "1").mkdir(parents=True)
    try:
        kind.write(part, place / "1")
    except RuntimeError as error:  # OpenVINO's of a full disk, too, and the exporter's of PyTorch
        raise UserError(
            f"The {part.name} cannot be written to {folder.parent} ({reason_of(error):.200}). Make "
            f"room, or take other versions of {', '.join(BACKENDS[format_name].packages)}."
        ) from error
    (place / "config.pbtxt").write_text(_triton(part, kind.triton))
    off = _difference(part, place / "1" / kind.file, format_name)
    _write_example(part, folder / "examples")
    side, groups = _latent_side(pipe), parameters_by_group(part)
    return {
        "inputs": [_described(tensor) for tensor in part.inputs],
        "output": _described(part.outputs[0]),
        "height_and_width_are_multiples_of": part.multiple,
        "parameters": sum(groups.values()),
        "groups": groups,
        "multiply_adds": multiply_adds(part, side, side),
        "bytes": sum(path.stat().st_size for path in (place / "1").iterdir()),
        "largest_difference_from_pytorch": off,
    }


def _latent_side(pipe: StableDiffusionPipeline) -> int:
    """Height and width of a picture's latents; Stable Diffusion's where no number says so."""
    side = pipe.unet.config.sample_size
    return side if isinstance(side, int) else 64


def _difference(part: Part, file: Path, format_name: str) -> float:
    """The largest difference from PyTorch, as a share of the largest value. Raises UserError."""
    network = FORMATS[format_name].open(file)
    try:
        worst = max(difference(part, network, inputs) for inputs in part.checks())
    except ValueError as error:  # another shape
        raise UserError(f"{error}. Report this.") from error
    if not worst <= TOLERANCE:
        raise UserError(
            f"{part.name} differs from PyTorch by {worst:.1e} of its largest value. Take other "
            f"versions of {', '.join(BACKENDS[format_name].packages)}."
        )
    return worst


def _write_example(part: Part, folder: Path) -> None:
    """A call of one picture, as small as can be, and its answer."""
    folder.mkdir(exist_ok=True)
    inputs = part.example(1, 1, 1, seed=1)
    pairs = list(zip(part.inputs, inputs, strict=True))
    asked = {"inputs": [_value(tensor, value) for tensor, value in pairs]}
    answer = {"model_name": part.name, "outputs": [_value(part.outputs[0], part(inputs)[0])]}
    (folder / f"{part.name}.request.json").write_text(json.dumps(asked))
    (folder / f"{part.name}.answer.json").write_text(json.dumps(answer))


def _value(tensor: Tensor, value: torch.Tensor) -> dict:
    about = {"name": tensor.name, "shape": list(value.shape), "datatype": DATATYPES[tensor.dtype]}
    return about | {"data": value.flatten().tolist()}


def _described(tensor: Tensor) -> dict:
    return {"name": tensor.name, "datatype": DATATYPES[tensor.dtype], "shape": list(tensor.shape)}


def _triton(part: Part, backend: str) -> str:
    """config.pbtxt: dimensions without a number are -1."""

    def tensor_of(kind: str, tensor: Tensor) -> str:
        sides = ", ".join("-1" if isinstance(side, str) else str(side) for side in tensor.shape)
        return (
            f'{kind} [{{ name: "{tensor.name}", data_type: TYPE_{DATATYPES[tensor.dtype]}, '
            f"dims: [{sides}] }}]\n"
        )

    head = f'name: "{part.name}"\nbackend: "{backend}"\nmax_batch_size: 0\n'
    inputs = "".join(tensor_of("input", tensor) for tensor in part.inputs)
    return head + inputs + tensor_of("output", part.outputs[0])
