"""LoRA files: one in diffusers' layout, one in kohya's, of the same strength in every program."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from safetensors.torch import save_file

from core.tensor_names import KOHYA_FILE, LORA_FILE, hub_name, kohya_name
from training.config import Config
from training.model import refuse_non_finite
from training.sharding import whole

Tensors = dict[str, torch.Tensor]
WIDTH_OF_SD2 = 1024  # of the text embeddings of its UNets


def write_lora(
    folder: Path, weights: Tensors, unet: UNet2DConditionModel, config: Config, manifest: dict
) -> None:
    """Both files. Raises `UserError` when the weights are not finite."""
    refuse_non_finite("LoRA", weights, torch.float32)
    files = {
        LORA_FILE: (in_diffusers_layout(weights, config), {"format": "pt"}),
        KOHYA_FILE: (in_kohya_layout(weights, config), kohya_metadata(unet, config, manifest)),
    }
    for name, (tensors, metadata) in files.items():
        tensors = {name: whole(tensor) for name, tensor in tensors.items()}
        save_file(tensors, folder / name, metadata)


def alpha_of(config: Config) -> float:
    """LoRA's alpha: updates are scaled by alpha / rank."""
    return float(config.lora_alpha or config.rank)


def in_diffusers_layout(weights: Tensors, config: Config) -> Tensors:
    """The weights, by peft's names, as `pipe.load_lora_weights` opens them.

    alpha / rank is multiplied in: this layout has room for it only in metadata, which many programs
    do not read and older versions of peft refuse.
    """
    strength = alpha_of(config) / config.rank
    scaled = {
        _with_level(name): weight * strength if ".lora_B." in name else weight
        for name, weight in weights.items()
    }
    named = diffusers_names(scaled)
    # diffusers has its own names only for attention layers, and in a mixture of those and of peft's
    # it silently drops the former.
    return peft_names(scaled) if any(".lora_A." in name for name in named) else named


def diffusers_names(weights: Tensors) -> Tensors:
    return convert_state_dict_to_diffusers(peft_names(weights))


def peft_names(weights: Tensors) -> Tensors:
    """The weights by peft's names without that of the adapter."""
    return {name.replace(".default.", "."): weight for name, weight in weights.items()}


def _with_level(name: str) -> str:
    part, _, inner = name.partition(".")
    return f"{part}.{hub_name(part, inner)}"


def in_kohya_layout(weights: Tensors, config: Config) -> Tensors:
    """The trained matrices, unchanged, and each layer's alpha, as AUTOMATIC1111, ComfyUI, kohya's
    scripts and diffusers open them."""
    tensors = {kohya_name(name): weight for name, weight in weights.items()}
    alpha = torch.tensor(alpha_of(config))
    layers = sorted({name.partition(".")[0] for name in tensors})
    return tensors | {f"{layer}.alpha": alpha.clone() for layer in layers}


def kohya_metadata(unet: UNet2DConditionModel, config: Config, manifest: dict) -> dict[str, str]:
    """The metadata of kohya's scripts, which other programs show or filter by."""
    is_sd2 = unet.config.cross_attention_dim == WIDTH_OF_SD2
    base = Path(config.pretrained_model_name_or_path)
    facts: dict[str, object] = {
        "base_model_version": "sd_v2" if is_sd2 else "sd_v1",
        "v2": is_sd2,
        "sd_model_name": base.resolve().name if base.exists() else base.as_posix(),
        "output_name": config.output.resolve().name,
        "network_module": "networks.lora",
        "network_dim": config.rank,
        "network_alpha": alpha_of(config),
        "unet_lr": config.learning_rate,
        "text_encoder_lr": config.learning_rate if config.train_text_encoder else None,
        "learning_rate": config.learning_rate,
        "lr_scheduler": config.lr_scheduler,
        "optimizer": config.optimizer_name,
        "mixed_precision": config.mixed_precision,
        "batch_size_per_device": config.train_batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "resolution": config.resolution and f"({config.resolution}, {config.resolution})",
        "num_train_images": manifest.get("dataset", {}).get("pictures"),
        "steps": manifest.get("steps"),
        "session_id": manifest.get("run_id"),
        "seed": config.seed,
    }
    known = {f"ss_{name}": str(fact) for name, fact in facts.items() if fact is not None}
    return {"format": "pt"} | known
