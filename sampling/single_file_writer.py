"""Writes a model as one .safetensors file in the original (CompVis) layout, or its LoRA as kohya's.

AUTOMATIC1111, Forge and ComfyUI open such files. They hold weights only: whatever these programs
take for granted of a Stable Diffusion 1 has to be so, or the file would be misread.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import UserError, reason_of
from core.files import replaced
from core.model_check import picture_side
from core.paths import is_file, is_folder, is_there
from core.tensor_names import KOHYA_FILE, LORA_FILE, kohya_name
from sampling.compvis_names import compvis_weights
from sampling.model_info import model_name, read_run
from sampling.pipeline import open_pipeline

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

SUFFIX = ".safetensors"
DTYPES = {"fp16": "float16", "fp32": "float32"}
MAX_TEXT = 1000  # characters of a line of metadata
# What is written in no file of this layout.
TAKEN_FOR_GRANTED = {
    ("unet", "in_channels"): 4,
    ("unet", "use_linear_projection"): False,
    ("vae", "latent_channels"): 4,
    ("vae", "scaling_factor"): 0.18215,
    ("text_encoder", "hidden_act"): "quick_gelu",
    ("scheduler", "prediction_type"): "epsilon",
    ("scheduler", "beta_schedule"): "scaled_linear",
    ("scheduler", "beta_start"): 0.00085,
    ("scheduler", "beta_end"): 0.012,
    ("scheduler", "num_train_timesteps"): 1000,
}
SIZES = {  # of Stable Diffusion 1
    ("unet", "block_out_channels"): [320, 640, 1280, 1280],
    ("unet", "layers_per_block"): 2,
    ("unet", "cross_attention_dim"): 768,
    ("unet", "attention_head_dim"): 8,
    ("vae", "block_out_channels"): [128, 256, 512, 512],
    ("vae", "layers_per_block"): 2,
    ("text_encoder", "vocab_size"): 49408,
    ("text_encoder", "hidden_size"): 768,
    ("text_encoder", "num_hidden_layers"): 12,
}
OTHER_SIZES = (
    "'{}' has the names of Stable Diffusion 1, but not its sizes ({} is {}, there {}). diffusers "
    "and this project open it with the model's configs; AUTOMATIC1111, Forge and ComfyUI do not."
)


def write_single_file(model: str | Path, target: str | Path, dtype: str = "fp16") -> str:
    """Write all of `model` to `target`, a new .safetensors file; a LoRA is merged into its base.

    `dtype`: a key of DTYPES. Returns a sentence about who cannot open the file, "" where all can.
    Raises UserError, and leaves nothing behind, for a model that the layout cannot hold.
    """
    target = checked_target(target, dtype)
    pipe = open_pipeline(str(model), "cpu", "fp32")
    weights = {name: _cast(tensor, dtype, name) for name, tensor in _weights(pipe, model).items()}
    _save(weights, target, _metadata(pipe, str(model), weights))
    for (part, setting), usual in SIZES.items():
        if (has := _setting(pipe, part, setting)) != usual:
            return OTHER_SIZES.format(target, f"{part}'s {setting}", has, usual)
    return ""


def write_kohya_lora(model: str | Path, target: str | Path, dtype: str = "fp16") -> None:
    """Write the LoRA of a model folder, without its base, to a new file in kohya's layout.

    Raises UserError, and leaves nothing behind, where there is none.
    """
    from safetensors import safe_open

    target = checked_target(target, dtype)
    source = next((p for n in (KOHYA_FILE, LORA_FILE) if is_file(p := Path(model) / n)), None)
    if source is None:
        what = "holds no LoRA" if is_folder(model) else "is no folder"
        raise UserError(
            f"'{model}' {what}. Give a folder that train_text_to_image.py --method lora wrote."
        )
    try:
        with safe_open(source, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if source.name == LORA_FILE:
            tensors, metadata = _kohya_tensors(tensors), {}
    except Exception as error:  # safetensors and diffusers have errors of their own
        raise UserError(
            f"{source} cannot be read as a LoRA ({reason_of(error):.100}). Train it again."
        ) from error
    weights = {name: _cast(tensor, dtype, name) for name, tensor in tensors.items()}
    _save(weights, target, metadata | {"modelspec.title": _title(str(model))})


def checked_target(target: str | Path, dtype: str) -> Path:
    """The path of a file that can be written. Raises UserError before a model is opened."""
    target = Path(target)
    if dtype not in DTYPES:
        raise UserError(f"There is no dtype '{dtype}' for a file. Choose {' or '.join(DTYPES)}.")
    if target.suffix.lower() != SUFFIX:
        raise UserError(f"'{target}' does not end in {SUFFIX}. Name such a file.")
    if is_there(target):
        raise UserError(f"'{target}' is there already. Name another file, or delete that one.")
    if not is_folder(target.parent):
        raise UserError(f"There is no folder '{target.parent}'. Make it, or name another.")
    return target


def _weights(pipe: StableDiffusionPipeline, model: str | Path) -> dict[str, torch.Tensor]:
    for (part, setting), needed in TAKEN_FOR_GRANTED.items():
        if (has := _setting(pipe, part, setting)) != needed:
            raise _cannot_hold(model, f"{part}'s {setting} is {has}, and there always {needed}")
    try:
        return compvis_weights(pipe)
    except KeyError as error:
        raise _cannot_hold(model, f"it has no place for {error}") from error


def _cannot_hold(model: str | Path, reason: str) -> UserError:
    return UserError(
        f"The layout of Stable Diffusion 1 cannot hold '{model}' ({reason}). Share its folder, "
        "which diffusers opens, or export it to ONNX or OpenVINO."
    )


def _setting(pipe: StableDiffusionPipeline, part: str, name: str) -> Any:
    value = getattr(getattr(pipe, part).config, name, None)
    return list(value) if isinstance(value, tuple) else value


def _cast(tensor: torch.Tensor, dtype: str, name: str) -> torch.Tensor:
    import torch

    if not tensor.is_floating_point():
        return tensor
    cast = tensor.to(getattr(torch, DTYPES[dtype])).contiguous()
    if not cast.isfinite().all():
        way_out = "Train it again." if dtype == "fp32" else "Choose --dtype fp32."
        raise UserError(f"{name} has values that {dtype} cannot hold. {way_out}")
    return cast


def _kohya_tensors(lora: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A LoRA in diffusers' layout, which has alpha / rank multiplied in, by kohya's names."""
    import torch

    tensors = {}
    for key, tensor in lora.items():
        key = re.sub(r"\.lora(_linear_layer)?\.down\.", ".lora_A.", key)
        tensors[kohya_name(re.sub(r"\.lora(_linear_layer)?\.up\.", ".lora_B.", key))] = tensor
    ranks = {key: len(t) for key, t in tensors.items() if key.endswith(".lora_down.weight")}
    alphas = {key.partition(".")[0] + ".alpha": torch.tensor(float(r)) for key, r in ranks.items()}
    return tensors | alphas


def _metadata(
    pipe: StableDiffusionPipeline, model: str, weights: dict[str, torch.Tensor]
) -> dict[str, str]:
    """Stability AI's modelspec 1.0.1, which the programs show; the same model gives the same."""
    run = read_run(model) if is_folder(model) else {}
    side = picture_side(dict(pipe.unet.config), dict(pipe.vae.config))
    about = {
        "sai_model_spec": "1.0.1",
        "architecture": "stable-diffusion-v1",
        "implementation": "https://github.com/CompVis/stable-diffusion",
        "title": _title(model),
        "resolution": f"{side}x{side}" if side else None,
        "prediction_type": "epsilon",
        "hash_sha256": f"0x{_digest(weights)}",
        "date": run.get("created"),
        "trigger_phrase": run.get("options", {}).get("instance_prompt"),
        "tags": f"fine-tune of {run['base_model']}" if "base_model" in run else None,
    }
    texts = {f"modelspec.{key}": str(text)[:MAX_TEXT] for key, text in about.items() if text}
    return texts | {"format": "pt"}


def _title(model: str) -> str:
    return model_name(model)[:MAX_TEXT]


def _digest(weights: dict[str, torch.Tensor]) -> str:
    """Of the file's tensors, in its order: sorted by name, as all have one type."""
    digest = hashlib.sha256()
    for _, tensor in sorted(weights.items()):
        digest.update(tensor.numpy())
    return digest.hexdigest()


def _save(weights: dict[str, torch.Tensor], target: Path, metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    with replaced(target) as staged:
        save_file(weights, staged, metadata)
