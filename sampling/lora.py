"""A LoRA fused into its base's weights, at a scale that can be changed while the model is open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError, reason_of
from core.tensor_names import KOHYA_FILE, LORA_FILE

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline
    from peft.tuners.lora import LoraLayer

ATTRIBUTE = "_fused_lora"  # of a pipeline


@dataclass(frozen=True)
class FusedLayer:
    """A layer of the base, and what puts the LoRA into it."""

    lora: LoraLayer
    base: torch.Tensor  # its weight without the LoRA, as it was read from the file
    scaling: dict[str, float]  # alpha / rank


class FusedLora:
    """Fuses a LoRA again and again, each time from the base's own weights.

    Unfusing would leave rounding behind, and a picture must not depend on the scales before it. So
    the layers that have a LoRA are kept a second time (for SD v1-4's attention 0.37 GB, a tenth of
    the model), on the CPU and in the dtype in which they were read. The result has the bits of a
    model that was opened at that scale.
    """

    def __init__(self, pipe: StableDiffusionPipeline, scale: float):
        """`pipe` has just loaded the LoRA; `scale`: what 1 stands for in `fuse`."""
        from peft.tuners.lora import LoraLayer

        self._scale = scale
        self._layers = [
            FusedLayer(module, module.get_base_layer().weight.detach().clone(), {**module.scaling})
            for part in (pipe.unet, pipe.text_encoder)
            for module in part.modules()
            if isinstance(module, LoraLayer)
        ]
        self._fused: float | None = None
        self.fuse(1.0)

    @property
    def weights(self) -> list[torch.Tensor]:
        """Those that `fuse` changes."""
        return [layer.lora.get_base_layer().weight for layer in self._layers]

    def fuse(self, scale: float) -> None:
        """Set the weights to base + `scale` * LoRA, wherever the pipeline is by now."""
        if scale == self._fused:
            return
        self._fused = None  # until all layers have it
        for layer in self._layers:
            self._fuse_layer(layer, self._scale * scale)
        self._fused = scale

    def _fuse_layer(self, layer: FusedLayer, scale: float) -> None:
        """As peft fuses a freshly loaded LoRA, whose bits depend on the dtype and the device."""
        import torch

        weight = layer.lora.get_base_layer().weight
        current = weight.data
        layer.lora.merged_adapters.clear()
        layer.lora.scaling.update(layer.scaling)
        layer.lora.scale_layer(scale)
        try:
            with torch.no_grad():
                weight.data = layer.base.clone()
                layer.lora.merge()
                current.copy_(weight.data)
        finally:
            weight.data = current


def attach(pipe: StableDiffusionPipeline, lora: FusedLora) -> None:
    """Keep a pipeline's LoRA with it."""
    setattr(pipe, ATTRIBUTE, lora)


def fused_lora(pipe: StableDiffusionPipeline) -> FusedLora | None:
    """The LoRA that a pipeline was opened with, if any."""
    return getattr(pipe, ATTRIBUTE, None)


def lora_file(model: str, checkpoint: str | None) -> Path:
    """The file with a LoRA's weights: the final ones, or a checkpoint's, of any version of ours."""
    if checkpoint is None:
        return Path(model) / LORA_FILE
    folder = Path(model) / checkpoint
    places = [path / name for path in (folder / "ema", folder) for name in (KOHYA_FILE, LORA_FILE)]
    return next((path for path in places if path.is_file()), places[-1])


def unstated_strength(weights: Path, checkpoint: str | None, run: dict) -> float:
    """A LoRA's strength as far as its file does not state it: alpha / rank, by run.json, for a
    checkpoint in diffusers' layout, which has no field for alpha. Else 1."""
    options = run.get("options", {})
    alpha, rank = options.get("lora_alpha"), options.get("rank")
    known = isinstance(alpha, int | float) and isinstance(rank, int) and rank > 0
    return alpha / rank if checkpoint and weights.name == LORA_FILE and known else 1.0


def fuse_lora(pipe: StableDiffusionPipeline, weights: Path, scale: float) -> None:
    """Fuse a LoRA file into the weights of its base model, `scale` times. Raises UserError where it
    cannot be read, or is of other layers than the model's."""
    try:
        pipe.load_lora_weights(str(weights.parent), weight_name=weights.name)
    except Exception as error:  # diffusers, peft and safetensors have errors of their own
        raise _misfit(weights, reason_of(error)) from error
    lora = FusedLora(pipe, scale)
    pipe.unload_lora_weights()
    if not lora.weights:  # diffusers passes over names that it does not know
        raise _misfit(weights, "no layer has one of its names")
    attach(pipe, lora)


def _misfit(weights: Path, reason: str) -> UserError:
    return UserError(
        f"{weights} does not fit its base model, or is damaged ({reason:.100}). Train it again, or "
        "give another."
    )
