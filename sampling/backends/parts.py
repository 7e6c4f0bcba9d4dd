"""The parts of a model that other libraries compute: tensors in, tensors out, no more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from sampling.deep_features import ShallowUNet, WholeUNet, deep_channels, is_divisible

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

SIZES = ((1, 1), (1, 2), (3, 1))  # height and width of what is checked, in units of Part.multiple
BATCHES = (1, 2)
Shape = tuple[int | str, ...]  # a word stands for any number


@dataclass(frozen=True)
class Tensor:
    """A named input or output."""

    name: str
    dtype: str  # "float32" | "int64"
    shape: Shape
    below: int | None = None  # it holds whole numbers from 0 on; None: numbers around 0

    def sample(self, sizes: dict[str, int]) -> torch.Tensor:
        """Random numbers of its kind."""
        shape = [sizes[side] if isinstance(side, str) else side for side in self.shape]
        if self.below is None:
            return torch.randn(shape)
        return torch.randint(self.below, shape).to(getattr(torch, self.dtype))


@dataclass(frozen=True)
class Part:
    """A part with its signature."""

    name: str
    module: torch.nn.Module
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    multiple: int  # height and width are multiples of this
    unused: tuple[str, ...] = ()  # groups of layers that a call does not reach
    traced: tuple[int, int] = (2, 3)  # height and width of the call that is traced, in its units
    network: str = ""  # the class, of diffusers, of the network that it is of

    def example(self, batch: int, height: int, width: int, seed: int = 0) -> list[torch.Tensor]:
        """Inputs for a call; `height` and `width` in units of `multiple`."""
        sizes = {"batch": batch, "height": height * self.multiple, "width": width * self.multiple}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return [tensor.sample(sizes) for tensor in self.inputs]

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self.module.parameters())

    def checks(self) -> Iterator[list[torch.Tensor]]:
        for batch in BATCHES:
            for height, width in SIZES:
                yield self.example(batch, height, width)

    @torch.no_grad()
    def __call__(self, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        found = self.module.eval()(*inputs)
        return found if isinstance(found, tuple) else (found,)


class TextEncoder(torch.nn.Module):
    """Token ids -> embeddings."""

    def __init__(self, pipe: StableDiffusionPipeline):
        super().__init__()
        self.text_encoder = pipe.text_encoder

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.text_encoder(input_ids)[0]


class UNet(torch.nn.Module):
    """Noisy latents, timesteps, embeddings -> what the scheduler takes."""

    def __init__(self, pipe: StableDiffusionPipeline):
        super().__init__()
        self.unet, self.config = pipe.unet, pipe.unet.config

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor
    ) -> torch.Tensor:
        return self.unet(sample, timestep, encoder_hidden_states, return_dict=False)[0]


class Decoder(torch.nn.Module):
    """Latents, as the UNet has them, -> pictures in 0..1."""

    def __init__(self, pipe: StableDiffusionPipeline):
        super().__init__()
        self.vae, self.scale = pipe.vae, pipe.vae.config.scaling_factor
        self.config = pipe.vae.config

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        decoded = self.vae.decode(latents / self.scale, return_dict=False)[0]
        return (decoded / 2 + 0.5).clamp(0, 1)


def parts_of(pipe: StableDiffusionPipeline) -> list[Part]:
    """Text encoder, UNet and decoder."""
    channels, width = pipe.unet.config.in_channels, pipe.unet.config.cross_attention_dim
    tokens, words = pipe.tokenizer.model_max_length, len(pipe.tokenizer)
    latents: Shape = ("batch", channels, "height", "width")
    embeddings: Shape = ("batch", tokens, width)
    multiple = 2 ** (len(pipe.unet.config.block_out_channels) - 1)
    parts = (
        ("text_encoder", TextEncoder(pipe), (
            Tensor("input_ids", "int64", ("batch", tokens), min(words, 1000)),),
         Tensor("embeddings", "float32", embeddings)),
        ("unet", UNet(pipe), (
            Tensor("sample", "float32", latents), Tensor("timestep", "int64", ("batch",), 1000),
            Tensor("encoder_hidden_states", "float32", embeddings)),
         Tensor("out_sample", "float32", latents)),
        ("vae_decoder", Decoder(pipe), (Tensor("latents", "float32", latents),),
         Tensor("images", "float32", ("batch", 3, "picture_height", "picture_width"))),
    )  # fmt: skip
    unused = {"vae_decoder": ("encoder", "quant_conv")}
    networks = {"unet": type(pipe.unet).__name__, "vae_decoder": type(pipe.vae).__name__}
    return [
        Part(name, module, inputs, (output,), multiple, unused.get(name, ()),
             network=networks.get(name, ""))
        for name, module, inputs, output in parts
    ]  # fmt: skip


def drawing_parts(pipe: StableDiffusionPipeline) -> list[Part]:
    """Decoder and UNet as drawing calls them: of any height and width, as PyTorch's are, and with
    the fractions between timesteps that some schedulers take. The UNet gives what its deep layers
    find, too, where it can be used again; then its shallow layers are a third part."""
    _, unet, decoder = parts_of(pipe)
    sample, timestep, embeddings = unet.inputs
    inputs = sample, replace(timestep, dtype="float32"), embeddings
    parts = [decoder, replace(unet, inputs=inputs)]
    if is_divisible(pipe.unet):
        deep = deep_channels(pipe.unet), "height", "width"
        found = Tensor("deep", "float32", ("batch", *deep))
        outputs = *unet.outputs, found
        parts[1] = replace(parts[1], module=WholeUNet(pipe.unet), outputs=outputs)
        shallow = ShallowUNet(pipe.unet)
        parts.append(replace(unet, name="shallow_unet", module=shallow, inputs=(*inputs, found)))
    # Odd sizes: the UNet of diffusers then takes the way that fits any, not that for multiples.
    return [replace(part, multiple=1, traced=(9, 13)) for part in parts]
