"""A pipeline's weights under the names that Stable Diffusion 1 was published with (CompVis).

They are what AUTOMATIC1111, Forge and ComfyUI look for in a file. The way back, from these names to
ours, is diffusers' (`sampling.single_file`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from core.tensor_names import hub_name
from sampling.single_file import PARTS

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_NAMES = {
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
MIDDLE = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 2}


def compvis_weights(pipe: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    """All that a single file holds of `pipe`, by its names there.

    Raises KeyError for a module that Stable Diffusion 1 does not have.
    """
    unet, vae, text = (part.state_dict() for part in (pipe.unet, pipe.vae, pipe.text_encoder))
    blocks = len(pipe.vae.config.block_out_channels)
    weights = {PARTS["unet"] + _unet_name(key, pipe.unet.config): unet[key] for key in unet}
    for key, tensor in vae.items():
        # What is linear in diffusers is a convolution of one pixel in the original.
        is_projection = ".attentions." in key and tensor.ndim == 2
        weights[PARTS["vae"] + _vae_name(key, blocks)] = (
            tensor[:, :, None, None] if is_projection else tensor
        )
    for key, tensor in text.items():
        weights[f"{PARTS['text_encoder']}transformer.{hub_name('text_encoder', key)}"] = tensor
    return weights


def _unet_name(key: str, config: Any) -> str:
    """Blocks are counted through: down from 1, after conv_in; up from 0."""
    start, end = key.rsplit(".", 1)
    if start in UNET_ENDS:
        return f"{UNET_ENDS[start]}.{end}"
    found = re.fullmatch(r"(down|mid|up)_blocks?\.?(\d*)\.(\w+)\.(\d+)\.(.+)", key)
    if found is None:
        raise KeyError(key)
    block, number, kind, layer, rest = found.groups()
    if kind == "resnets":
        name, end = rest.split(".")
        rest = f"{UNET_RESNET[name]}.{end}"
    if block == "mid":
        return f"middle_block.{MIDDLE[f'{kind}.{layer}']}.{rest}"
    a_block = config.layers_per_block + 1  # of the original's; the last of them goes down, or up
    if kind == "downsamplers":
        return f"input_blocks.{(int(number) + 1) * a_block}.0.{rest.replace('conv', 'op')}"
    if kind == "upsamplers":
        after = 2 if "CrossAttn" in config.up_block_types[int(number)] else 1
        return f"output_blocks.{(int(number) + 1) * a_block - 1}.{after}.{rest}"
    side, first = ("input", 1) if block == "down" else ("output", 0)
    place = first + int(number) * a_block + int(layer)
    return f"{side}_blocks.{place}.{int(kind == 'attentions')}.{rest}"


def _vae_name(key: str, blocks: int) -> str:
    """The decoder's blocks are counted from the last."""
    key = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(
        r"up_blocks\.(\d+)\.(resnets|upsamplers\.0)",
        lambda found: (
            f"up.{blocks - 1 - int(found[1])}." + ("block" if found[2] == "resnets" else "upsample")
        ),
        key,
    )
    for ours, theirs in VAE_NAMES.items():
        key = re.sub(rf"(?<!\w){re.escape(ours)}(?!\w)", theirs, key)
    return key
