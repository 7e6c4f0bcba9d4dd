"""Which weights learn, how they are averaged and how they are saved."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from safetensors import SafetensorError

from errors import UserError
from training.checkpoint import replaced_files

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def load_model(config, run) -> StableDiffusionPipeline:
    """The base model in float32, frozen, its UNet on the device.

    Raises `UserError` when there is no such model, or it is not a Stable Diffusion 1 or 2.
    """
    name = config.pretrained_model_name_or_path
    hub = {"revision": config.revision, "variant": config.variant}
    try:
        kind = DiffusionPipeline.load_config(name, revision=config.revision)["_class_name"]
        if kind != "StableDiffusionPipeline":
            raise UserError(f"{name} is a {kind}; only a StableDiffusionPipeline can be trained.")
        pipe = StableDiffusionPipeline.from_pretrained(name, dtype=torch.float32, **hub)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{name} is neither a Stable Diffusion folder here nor one that the hub gives "
            f"({type(error).__name__}); check --pretrained_model_name_or_path."
        ) from error
    if config.prediction_type:
        pipe.scheduler.register_to_config(prediction_type=config.prediction_type)
    if pipe.unet.config.in_channels != pipe.vae.config.latent_channels:
        raise UserError(
            f"The UNet of {name} takes {pipe.unet.config.in_channels} channels and its VAE gives "
            f"{pipe.vae.config.latent_channels}: an inpainting or other special model; choose a "
            "text-to-image one."
        )
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.requires_grad_(False).eval()
    pipe.unet.to(run.device)
    return pipe


class FullWeights(torch.nn.Module):
    """Every weight of the UNet learns; with --train_text_encoder, of the text encoder as well.

    Trainable weights are float32 whatever the precision of the passes.
    """

    def __init__(self, pipe: StableDiffusionPipeline, config):
        super().__init__()
        self.config, self.pipe = config, pipe
        self.unet = pipe.unet.requires_grad_(True)
        if config.train_text_encoder:
            self.text_encoder = pipe.text_encoder.to(pipe.unet.device).requires_grad_(True)
        if config.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
            if config.train_text_encoder:
                self.text_encoder.activation_checkpointing_enable()
        # A compiled function, not a compiled module: the weights keep their names, and previews,
        # whose batches have other sizes, run without compiling anew.
        forward = self.unet.forward
        self.denoise = torch.compile(forward) if config.torch_compile else forward
        self.weights = {name: w for name, w in self.named_parameters() if w.requires_grad}
        self.ema = Ema(self.weights, config.ema_decay) if config.use_ema else None

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """What the UNet predicts, B,C,h,w, for prompts given as token ids or as embeddings."""
        if not prompt.is_floating_point():
            prompt = self.pipe.text_encoder(prompt)[0]
        return self.denoise(x_t, t, prompt, return_dict=False)[0]

    def averaged(self):
        """Within it, the weights are those that are previewed and saved."""
        return self.ema.applied_to(self.weights) if self.ema else nullcontext()

    @contextmanager
    def drawing(self) -> Iterator[StableDiffusionPipeline]:
        """The pipeline as it would be saved, on one device; idle parts leave again afterwards."""
        parts = self._modules_of_pipe().values()
        homes = [part.device for part in parts]
        self.eval()
        try:
            with self.averaged():
                yield self.pipe.to(self.unet.device)
        finally:
            self.train()
            for part, home in zip(parts, homes, strict=True):
                part.to(home)

    def all_finite(self) -> bool:
        """Whether every learning weight is a number."""
        norms = torch._foreach_norm([weight.detach() for weight in self.weights.values()])
        return bool(torch.stack(norms).isfinite().all())

    def save(self, folder: str | Path, manifest: dict) -> None:
        """A whole pipeline folder and its run.json. What was there stays until all is written.

        Raises `UserError` when the weights are not finite or do not fit --save_dtype.
        """
        dtype = DTYPES[self.config.save_dtype]
        with self.averaged():
            parts = {name: part_in(dtype, part) for name, part in self._modules_of_pipe().items()}
        pipe = StableDiffusionPipeline(
            **self.pipe.components | parts,
            requires_safety_checker=self.pipe.config.requires_safety_checker,
        )
        with replaced_files(Path(folder), last="model_index.json") as staged:
            pipe.save_pretrained(staged)
            (staged / "run.json").write_text(json.dumps(manifest, indent=2) + "\n")

    def _modules_of_pipe(self) -> dict[str, torch.nn.Module]:
        parts = self.pipe.components.items()
        return {name: part for name, part in parts if isinstance(part, torch.nn.Module)}


class Ema:
    """Exponential moving average of weights, with warm-up so that short runs have one too."""

    def __init__(self, weights: dict[str, torch.nn.Parameter], decay: float):
        self.decay = decay
        self.shadow = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, weights: dict[str, torch.nn.Parameter], updates: int) -> None:
        """Move towards `weights` after optimizer step number `updates`, counted from 0."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(list(self.shadow.values()), list(weights.values()), 1 - decay)

    @contextmanager
    def applied_to(self, weights: dict[str, torch.nn.Parameter]) -> Iterator[None]:
        """Within it, `weights` are their average. Storage is swapped: no copy is made."""
        self._swap(weights)
        try:
            yield
        finally:
            self._swap(weights)

    def _swap(self, weights: dict[str, torch.nn.Parameter]) -> None:
        for name, weight in weights.items():
            weight.data, self.shadow[name] = self.shadow[name], weight.data


def part_in(dtype: torch.dtype, part: torch.nn.Module) -> torch.nn.Module:
    """A copy of part of a pipeline on the CPU, for saving. Raises `UserError` if it overflows."""
    part = copy.deepcopy(part)
    torch.nn.Module.to(part, "cpu", dtype)  # diffusers' own `to` warns of nothing at great length
    if not all(weight.isfinite().all() for weight in part.state_dict().values()):
        raise UserError(
            f"The {type(part).__name__} has values that are no numbers in {dtype}; "
            "try --save_dtype fp32, or train with a lower --learning_rate."
        )
    return part


WEIGHTS = {"full": FullWeights}
