"""What a training run has learned, put into an open pipeline: a LoRA, or a checkpoint."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError, reason_of
from core.model_check import check_files
from core.paths import is_file
from core.tensor_names import KOHYA_FILE, LORA_FILE, own_name

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline


def is_lora_folder(model: str) -> bool:
    """Whether `model` is a folder that holds a LoRA and no whole model."""
    folder = Path(model)
    return is_file(folder / LORA_FILE) and not is_file(folder / "model_index.json")


def lora_file(model: str, checkpoint: str | None) -> Path:
    """The LoRA's weights: the final ones, or a checkpoint's, whatever version wrote it."""
    if checkpoint is None:
        return Path(model) / LORA_FILE
    folder = Path(model) / checkpoint
    places = [path / name for path in (folder / "ema", folder) for name in (KOHYA_FILE, LORA_FILE)]
    return next((path for path in places if path.is_file()), places[-1])


def unsaid_strength(weights: Path, checkpoint: str | None, run: dict) -> float:
    """What a LoRA has to be multiplied by beside what its file says: alpha / rank, by its run.json,
    for a checkpoint in diffusers' layout, which has no place for it."""
    options = run.get("options", {})
    alpha, rank = options.get("lora_alpha"), options.get("rank")
    known = isinstance(alpha, int | float) and isinstance(rank, int) and rank > 0
    return alpha / rank if checkpoint and weights.name == LORA_FILE and known else 1.0


def put_lora(pipe: "StableDiffusionPipeline", weights: Path, scale: float) -> None:
    """Add a LoRA to the weights of its base model, `scale` times."""
    try:
        pipe.load_lora_weights(str(weights.parent), weight_name=weights.name)
    except Exception as error:  # diffusers, peft and safetensors have errors of their own
        raise UserError(
            f"{weights} does not fit its base model, or is damaged ({reason_of(error):.100}). "
            "Train it anew, or give another."
        ) from error
    pipe.fuse_lora(lora_scale=scale)
    pipe.unload_lora_weights()


def sha256_of_weights(pipe: "StableDiffusionPipeline") -> str:
    """Of all that was trained: tells a model from itself before, whatever it is called."""
    import torch

    digest = hashlib.sha256()
    for part in ("unet", "vae", "text_encoder"):
        for name, tensor in getattr(pipe, part).state_dict().items():
            digest.update(f"{part}.{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def put_checkpoint(pipe: "StableDiffusionPipeline", folder: Path) -> None:
    """Put the weights that learned, or their average, into the pipeline."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_files(folder)
    try:
        for name in ("unet", "text_encoder"):
            found = sorted(folder.glob(f"{name}_ema/*.safetensors")) or sorted(
                folder.glob(f"{name}/*.safetensors")
            )
            for path in found:
                tensors = {own_name(name, key): t for key, t in load_file(path).items()}
                getattr(pipe, name).load_state_dict(tensors)
            if name == "unet" and not found:
                raise FileNotFoundError(f"no weights in {folder}")
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(
            f"Checkpoint {folder} does not fit its model ({type(error).__name__}). Delete it, or "
            "leave --checkpoints out."
        ) from error
