"""Tensor names in files that other programs open: text encoders as on the hub, LoRAs as kohya's.

transformers 5.6 dropped a level from the module names of CLIP. All versions open files that have
it, as those of Stable Diffusion on the hub do; versions before 5.6 initialise a text encoder at
random from files without it, with only a warning. kohya's names of LoRA matrices are what
AUTOMATIC1111, ComfyUI and kohya's own scripts read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LORA_FILE = "pytorch_lora_weights.safetensors"  # diffusers' name, and diffusers' layout
KOHYA_FILE = "pytorch_lora_weights_kohya.safetensors"  # as diffusers' scripts call one of kohya's
# By pipeline part: the prefix of names that lack a level, and the level.
LEVELS = {"text_encoder": ("", "text_model."), "safety_checker": ("vision_model.", "vision_model.")}
KOHYA_PARTS = {"unet": "lora_unet", "text_encoder": "lora_te"}
KOHYA_MATRICES = {"A": "lora_down", "B": "lora_up"}  # by peft's names


def hub_name(part: str, name: str) -> str:
    """A tensor's name as in Stable Diffusion's file of `part`, with or without the level."""
    if part not in LEVELS:
        return name
    start, level = LEVELS[part]
    has_it = name.startswith(start + level) or not name.startswith(start)
    return name if has_it else start + level + name.removeprefix(start)


def own_name(part: str, name: str) -> str:
    """A tensor's name in modules of transformers 5.6 and later: the inverse of `hub_name`."""
    start, level = LEVELS.get(part, ("", ""))
    return start + name.removeprefix(start + level) if name.startswith(start + level) else name


@contextmanager
def hub_names(parts: dict[str, torch.nn.Module]) -> Iterator[None]:
    """Make `state_dict` and `save_pretrained` of a pipeline's parts use the hub's names."""
    with ExitStack() as stack:
        for part in LEVELS:
            if parts.get(part) is not None:
                hook = parts[part].register_state_dict_post_hook(_renamer(part))
                stack.callback(hook.remove)
        yield


def _renamer(part: str):
    """A `state_dict` hook that renames tensors in place."""

    def rename(module, tensors: dict[str, torch.Tensor], prefix: str, about) -> None:
        renamed = {hub_name(part, name): tensor for name, tensor in tensors.items()}
        tensors.clear()
        tensors.update(renamed)

    return rename


def kohya_name(name: str) -> str:
    """kohya's name of a LoRA matrix from peft's, such as unet.conv_in.lora_A.default.weight."""
    part, _, inner = name.partition(".")
    layer, matrix = hub_name(part, inner).split(".lora_")
    return f"{kohya_layer(part, layer)}.{KOHYA_MATRICES[matrix[0]]}.weight"


def kohya_layer(part: str, layer: str) -> str:
    return f"{KOHYA_PARTS[part]}_{layer}".replace(".", "_")
