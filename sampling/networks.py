"""What the denoiser computes with: the UNet and the decoder of a pipeline, by PyTorch or a back
end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from core.errors import is_ours, reason_of
from core.resource_errors import is_out_of_memory
from core.terminal import complain
from sampling.backends.choice import BACKENDS, TORCH, chosen
from sampling.lora import FusedLora, fused_lora
from sampling.pipeline import SMALL_UNET_PARAMETERS

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, StableDiffusionPipeline

    from sampling.backends.compilation import Compilation


Computed = TypeVar("Computed")
TILE = 32  # a side, of latents


class Networks(Protocol):
    """The networks that take most of the time of a picture."""

    backend: str  # "torch", or what sampling/backends/choice.py lists
    versions: dict[str, str]  # of the libraries beside PyTorch and diffusers

    def unet(
        self, sample: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor
    ) -> torch.Tensor:
        """What the UNet predicts for R,C,h,w. `timestep`: one for all rows, or one for each."""

    def whole_unet(
        self, sample: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, and what its deep layers found: R,D',h,w."""

    def shallow_unet(
        self, sample: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor,
        deep: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """About the same as `unet`, in a fraction of the time, by what the deep layers found in an
        earlier step."""

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

    def whole_unet(
        self, sample: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        from sampling.deep_features import WholeUNet

        return WholeUNet(self._unet)(sample, timestep, embeddings)

    def shallow_unet(
        self, sample: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor,
        deep: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        from sampling.deep_features import ShallowUNet

        return ShallowUNet(self._unet)(sample, timestep, embeddings, deep)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        latents = latents / self._vae.config.scaling_factor
        try:
            return self._vae.decode(latents).sample
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        return in_tiles(self._vae, latents)  # with what the attempt took free again


def in_tiles(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """What a VAE decodes, tile by tile, blended where they overlap: nearly the same, and in memory
    that does not grow with the picture."""
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    vae.tile_latent_min_size, vae.tile_sample_min_size = TILE, TILE * scale
    return vae.tiled_decode(latents).sample


class GuardedNetworks(Networks):
    """The networks of a back end, until it fails for the first time; then PyTorch's."""

    def __init__(
        self, compiled: Networks, instead: Callable[[str, Exception], Networks],
        sparing: Callable[[torch.Tensor], torch.Tensor],
    ):  # fmt: skip
        """`instead`: what goes on after a back end, by its name, has failed. `sparing`: decodes
        what a back end lacks the memory for."""
        self._now, self._instead, self._sparing = compiled, instead, sparing

    @property
    def backend(self) -> str:  # type: ignore[override]
        return self._now.backend

    @property
    def versions(self) -> dict[str, str]:  # type: ignore[override]
        return self._now.versions

    def unet(
        self, sample: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor
    ) -> torch.Tensor:
        return self._computed(lambda networks: networks.unet(sample, timestep, embeddings))

    def whole_unet(
        self, sample: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._computed(lambda networks: networks.whole_unet(sample, timestep, embeddings))

    def shallow_unet(
        self, sample: torch.Tensor, timestep: torch.Tensor, embeddings: torch.Tensor,
        deep: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        inputs = sample, timestep, embeddings, deep
        return self._computed(lambda networks: networks.shallow_unet(*inputs))

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        try:
            return self._computed(lambda networks: networks.decode(latents))
        except Exception as error:
            if self._now.backend == TORCH or not is_out_of_memory(error):
                raise
        return self._sparing(latents)

    def _computed(self, compute: Callable[[Networks], Computed]) -> Computed:
        if self._now.backend == TORCH:
            return compute(self._now)
        try:
            return compute(self._now)
        except Exception as error:  # each library has errors of its own
            if is_ours(error) or is_out_of_memory(error):
                raise
            self._now = self._instead(self._now.backend, error)
        return compute(self._now)


class PipelineNetworks:
    """The networks of a pipeline: PyTorch's, and those of a back end once they are compiled.

    A back end has a LoRA at the scale with which the model was opened; at others PyTorch draws. It
    does so, too, from the first failure of a back end on, and finishes what is under way.
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
        self._guarded: GuardedNetworks | None = None

    def at(self, lora_scale: float = 1.0) -> Networks:
        """What a drawing that begins now is computed with."""
        compiled = self._compilation.networks if self._compilation else None
        if not compiled or lora_scale != 1:
            return self._torch
        self._guarded = self._guarded or GuardedNetworks(
            compiled, self._go_on, lambda latents: self._torch.decode(latents)
        )
        return self._guarded

    def ready(self, lora_scale: float) -> Networks:
        """The same, with its weights in place. Not while another drawing of another scale is under
        way."""
        networks = self.at(lora_scale)
        if self._lora:  # of a back end too: the text encoder, and the UNet where PyTorch goes on
            self._lora.fuse(lora_scale)
        if networks is not self._torch and self._reopen and not self._is_freed:
            self._free()
        return networks

    def close(self) -> None:
        """Let a back end that is still being prepared be."""
        if self._compilation and not self._compilation.networks:
            self._compilation.stop()

    def whole_pipeline(self) -> StableDiffusionPipeline:
        """The pipeline with all of its weights, read again where they were freed."""
        return self._reopen() if self._is_freed and self._reopen else self._pipe

    def _go_on(self, backend: str, error: Exception) -> Networks:
        """PyTorch's networks, from now on, with all of their weights."""
        if self._compilation:
            complain(
                f"warning: {BACKENDS[backend].title} has failed ({reason_of(error):.200}). PyTorch "
                "draws from here on, in more time."
            )
            self._compilation = None
        if self._is_freed and self._reopen:
            self._pipe.unet, self._is_freed = self._reopen().unet, False
            self._torch = TorchNetworks(self._pipe)
        return self._torch

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
