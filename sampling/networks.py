"""What the denoiser computes with: the UNet and the decoder of a pipeline, by PyTorch or a back
end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from sampling.backends.choice import TORCH, chosen
from sampling.lora import FusedLora, fused_lora
from sampling.pipeline import SMALL_UNET_PARAMETERS

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

    from sampling.backends.compilation import Compilation


class Networks(Protocol):
    """The networks that take most of the time of a picture."""

    backend: str  # "torch", or what sampling/backends/choice.py lists
    versions: dict[str, str]  # of the libraries beside PyTorch and diffusers

    def unet(
        self, sample: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor
    ) -> torch.Tensor:
        """What the UNet predicts for R,C,h,w. `timestep`: one for all rows, or one for each."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents N,C,h,w as the UNet has them -> N,3,H,W in about -1..1."""


class TorchNetworks(Networks):
    """The networks of a pipeline as they are."""

    backend = "torch"
    versions: dict[str, str] = {}  # noqa: RUF012  (nobody changes it)

    def __init__(self, pipe: StableDiffusionPipeline):
        # Not the pipeline itself: its UNet may be freed while a drawing is still under way.
        self._unet, self._vae = pipe.unet, pipe.vae

    def unet(
        self, sample: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor
    ) -> torch.Tensor:
        return self._unet(sample, timestep, encoder_hidden_states=embeddings, return_dict=False)[0]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self._vae.decode(latents / self._vae.config.scaling_factor).sample


class PipelineNetworks:
    """The networks of a pipeline: PyTorch's, and those of a back end once they are compiled.

    A back end has a LoRA at the scale with which the model was opened; at others PyTorch draws.
    """

    def __init__(
        self, pipe: StableDiffusionPipeline, lora: FusedLora | None = None,
        compilation: Compilation | None = None,
        reopen: Callable[[], StableDiffusionPipeline] | None = None,
    ):  # fmt: skip
        """`reopen` opens the pipeline again: then the weights of a large UNet without a LoRA are
        freed as soon as the back end draws."""
        self._pipe, self._lora, self._compilation = pipe, lora, compilation
        self._torch = TorchNetworks(pipe)
        is_large = pipe.unet.num_parameters() >= SMALL_UNET_PARAMETERS
        self._reopen = reopen if is_large and lora is None else None
        self._is_freed = False

    def at(self, lora_scale: float = 1.0) -> Networks:
        """What a drawing that begins now is computed with."""
        compiled = self._compilation.networks if self._compilation else None
        return compiled if compiled and lora_scale == 1 else self._torch

    def ready(self, lora_scale: float) -> Networks:
        """The same, with its weights in place. Not while another drawing of another scale is under
        way."""
        networks = self.at(lora_scale)
        if networks is self._torch and self._lora:
            self._lora.fuse(lora_scale)
        if networks is not self._torch and self._reopen and not self._is_freed:
            self._free()
        return networks

    def whole_pipeline(self) -> StableDiffusionPipeline:
        """The pipeline with all of its weights, read again where they were freed."""
        return self._reopen() if self._is_freed and self._reopen else self._pipe

    def _free(self) -> None:
        """Put a UNet without weights into the pipeline, which goes on answering what it is."""
        import torch

        with torch.device("meta"):
            empty = type(self._pipe.unet).from_config(self._pipe.unet.config)
        self._pipe.unet = empty.to(self._pipe.unet.dtype)
        self._torch = TorchNetworks(self._pipe)  # drawings under way have the former
        self._is_freed = True


def networks_of(
    pipe: StableDiffusionPipeline, backend: str, when: str,
    reopen: Callable[[], StableDiffusionPipeline],
) -> PipelineNetworks:  # fmt: skip
    """The networks of a pipeline by a back end, "auto" included; `when` as in `Compilation`,
    `reopen` as in `PipelineNetworks`."""
    lora, compilation = fused_lora(pipe), None
    backend = chosen(backend, pipe.device.type, str(pipe.unet.dtype).removeprefix("torch."))
    if backend != TORCH:
        from sampling.backends.compilation import Compilation

        compilation = Compilation(pipe, backend, when, lora.weights if lora else ())
    return PipelineNetworks(pipe, lora, compilation, reopen)
