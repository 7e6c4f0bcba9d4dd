"""The UNet without most of its layers: what its deep ones found one step is used again in the next.

Between neighbouring steps they find nearly the same (Ma et al. 2024, "DeepCache: Accelerating
Diffusion Models for Free", sections 3.2 and 3.3). What is computed anew in every step is the first
convolution, the last layer of the last block, and the output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

# Of a UNet's configuration: with any of these it has other inputs, or another way through.
OTHERS = (
    "addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "center_input_sample",
    "resnet_skip_time_act", "time_embedding_act_fn",
)  # fmt: skip
LAST = ("UpBlock2D", "CrossAttnUpBlock2D")  # other blocks call their attention in ways of their own


def is_divisible(unet: UNet2DConditionModel) -> bool:
    """Whether this can be done with a UNet: with any that Stable Diffusion has."""
    is_known = unet.config.up_block_types[-1] in LAST
    return is_known and not any(unet.config.get(name) for name in OTHERS)


def deep_channels(unet: UNet2DConditionModel) -> int:
    """D': of what the deep layers of a UNet find."""
    return unet.up_blocks[-1].resnets[-1].in_channels - unet.conv_in.out_channels


class WholeUNet(torch.nn.Module):
    """A UNet that also returns what its deep layers found."""

    def __init__(self, unet: UNet2DConditionModel):
        super().__init__()
        self.unet, self.config = unet, unet.config

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """R,C,h,w, timesteps, R,77,D -> R,C,h,w, and R,D',h,w for `ShallowUNet`."""
        found = []
        # The input of the last layer: what comes from below, then the first convolution's output.
        last, deep = self.unet.up_blocks[-1].resnets[-1], deep_channels(self.unet)
        hook = last.register_forward_pre_hook(lambda _, given: found.append(given[0][:, :deep]))
        try:
            output = self.unet(sample, timestep, encoder_hidden_states, return_dict=False)[0]
        finally:
            hook.remove()
        return output, found[0].contiguous()


class ShallowUNet(torch.nn.Module):
    """The layers of a UNet that are computed in every step, of the same weights."""

    def __init__(self, unet: UNet2DConditionModel):
        super().__init__()
        block = unet.up_blocks[-1]
        self.config = unet.config
        self.conv_in, self.time_embedding = unet.conv_in, unet.time_embedding
        self.time_proj = unet.time_proj
        self.resnet = block.resnets[-1]
        self.attention = block.attentions[-1] if getattr(block, "attentions", None) else None
        self.conv_norm_out, self.conv_act, self.conv_out = (
            unet.conv_norm_out, unet.conv_act, unet.conv_out
        )  # fmt: skip

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor,
        deep: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """As a UNet's, with `deep` of an earlier step -> R,C,h,w."""
        # Not len(sample), which tracers take for a constant.
        times = self.time_proj(timestep.expand(sample.shape[0])).to(sample.dtype)
        hidden = torch.cat([deep, self.conv_in(sample)], dim=1)
        hidden = self.resnet(hidden, self.time_embedding(times))
        if self.attention is not None:
            hidden = self.attention(hidden, encoder_hidden_states, return_dict=False)[0]
        if self.conv_norm_out is not None:
            hidden = self.conv_act(self.conv_norm_out(hidden))
        return self.conv_out(hidden)
