"""The trainable weights, full or LoRA: chosen, averaged, checkpointed, saved."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig

from core.errors import UserError, reason_of
from core.model_folder import replaced_model
from core.tensor_names import KOHYA_FILE, LORA_FILE, hub_name
from training.checkpoint_files import OPTIMIZER, load
from training.config import Config
from training.cpu_speedups import speed_up
from training.ema import Ema
from training.lora import alpha_of, diffusers_names, in_kohya_layout, write_lora
from training.model import (
    DTYPES,
    embeddings_of,
    merged_pipeline,
    open_base,
    part_in,
    write_pipeline,
)
from training.sharding import Files, gathered, local, shard

BESIDE_WEIGHTS = 8 * 2**20  # bytes of configs, tokenizer and card
LORA_OF_TEXT = ("q_proj", "k_proj", "v_proj", "out_proj")


class Learner(torch.nn.Module):
    """The model in training, as one module: it predicts, is averaged, checkpointed and saved.

    Trainable weights are float32 whatever --mixed_precision says.
    """

    def __init__(self, pipe: StableDiffusionPipeline, config: Config):
        super().__init__()
        self.config, self.pipe = config, pipe
        self.unet = pipe.unet
        if config.train_text_encoder:
            self.text_encoder = pipe.text_encoder.to(pipe.unet.device)
        self._choose()
        if self.unet.device.type == "cpu" and not config.torch_compile:
            for unet in self._unets():
                speed_up(unet)
        if self.unet.device.type == "cuda" and not config.shard:  # shards are flat anyway
            for unet in self._unets():
                channels_last(unet)
        if config.gradient_checkpointing:
            self._recompute()
        if config.shard:
            for part in self.children():
                shard(part)
        # The function is compiled, not the module: weights keep their names, and previews, whose
        # batches have other sizes, need no further compilation.
        forward = self.unet.forward
        self.denoise = torch.compile(forward) if config.torch_compile else forward
        if config.shard:  # FSDP gathers the weights of a module when it is called
            self.denoise = self.unet
        self.weights = {name: w for name, w in self.named_parameters() if w.requires_grad}
        self.ema = (
            Ema(self.weights, config.ema_decay, config.offload_ema) if config.use_ema else None
        )

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """The prediction of the UNet, B,C,h,w, for prompts given as token ids or embeddings."""
        if not prompt.is_floating_point():
            prompt = embeddings_of(self.pipe, prompt, self.config)
        return self.denoise(x_t, t, prompt, return_dict=False)[0]

    @torch.no_grad()
    def teacher(self, x_t: torch.Tensor, t: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """The prediction of the model as it was before training, B,C,h,w, for --distill."""
        if not prompt.is_floating_point():
            prompt = embeddings_of(self.pipe, prompt, self.config)
        return self._before(x_t, t, prompt)

    def averaged(self) -> AbstractContextManager[None]:
        """Context in which the weights are those that are previewed and saved."""
        return self.ema.applied_to(self.weights) if self.ema else nullcontext()

    @contextmanager
    def drawing(self) -> Iterator[StableDiffusionPipeline]:
        """Context with the pipeline as it would be saved, on one device; afterwards idle parts
        leave it."""
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
        """Whether all trainable weights, or this process's shards, are finite."""
        norms = torch._foreach_norm([local(weight.detach()) for weight in self.weights.values()])
        return bool(torch.stack(norms).isfinite().all())

    def files(self, older: bool = False) -> Files:
        """The live weights and their average, as files of a checkpoint.

        `older`: in the layout of earlier versions.
        """
        files = self._files(self.weights, older)
        if self.ema:
            averages = self._files(self.ema.shadow, older)
            files |= {_of_average(path): tensors for path, tensors in averages.items()}
        return files

    @torch.no_grad()
    def start_from(self, folder: Path) -> None:
        """Start from the weights of a checkpoint, or from their average if it has one.

        Raises `UserError` if it is damaged, or if other weights were trained.
        """
        layouts = [self._files(self.weights, older) for older in (False, True)]
        names = {name for files in layouts for path in files for name in (path, _of_average(path))}
        for path in folder.rglob("*.safetensors"):
            if path.relative_to(folder).as_posix() not in names | {OPTIMIZER}:
                raise UserError(
                    f"--init_from_checkpoint: {path} was trained then and is not now; use the "
                    "options that it was made with, or leave it out."
                )
        load(folder, *(_averages_first(folder, files) for files in layouts))
        if self.ema:
            self.ema.restart(self.weights)

    @property
    def saved_bytes(self) -> int:
        """Bytes that `save` writes, at most."""
        size = BESIDE_WEIGHTS
        if self.config.method == "lora":
            size += 2 * 4 * sum(weight.numel() for weight in self.weights.values())  # two files
        if self.config.method == "full" or self.config.merge_lora:
            parts = self._modules_of_pipe().values()
            count = sum(weight.numel() for part in parts for weight in part.parameters())
            size += count * DTYPES[self.config.save_dtype].itemsize
        return size

    def save(self, folder: str | Path, manifest: dict, notes: dict[str, str] | None = None) -> None:
        """Write the model folder with run.json and `notes`, texts by file name.

        An existing folder is replaced at once when all is written. With sharded weights all
        processes must call this; the first one writes. Raises `UserError` if weights are non-finite
        or overflow in --save_dtype.
        """
        with self.averaged():
            weights = gathered({"": self.weights})[""]
        if torch.distributed.is_initialized() and torch.distributed.get_rank():
            return
        with replaced_model(Path(folder)) as staged:
            self._save(staged, weights, manifest)
            for name, text in (notes or {}).items():
                (staged / name).write_text(text)
            (staged / "run.json").write_text(json.dumps(manifest, indent=2) + "\n")

    def _recompute(self) -> None:
        """Gradient checkpointing: activations are recomputed in the backward pass."""
        self.unet.enable_gradient_checkpointing()
        if self.config.gradient_checkpointing_blocks == "largest":
            largest = {*self.unet.down_blocks[0].modules(), *self.unet.up_blocks[-1].modules()}
            for module in self.unet.modules():
                if module not in largest and hasattr(module, "gradient_checkpointing"):
                    module.gradient_checkpointing = False
        if self.config.train_text_encoder:
            self.text_encoder.activation_checkpointing_enable()

    def _modules_of_pipe(self) -> dict[str, torch.nn.Module]:
        parts = self.pipe.components.items()
        return {name: part for name, part in parts if isinstance(part, torch.nn.Module)}


class FullWeights(Learner):
    """All weights of the UNet and, with --train_text_encoder, of the text encoder."""

    def _choose(self) -> None:
        # In a tuple, so that it is no part of this module: neither trained nor saved.
        self._untrained: tuple[UNet2DConditionModel, ...] = ()
        if self.config.distill:
            untrained = copy.deepcopy(self.unet)
            if half := DTYPES.get(self.config.mixed_precision or "no"):
                torch.nn.Module.to(untrained, dtype=half)  # diffusers' own warns at great length
            self._untrained = (untrained,)
        self.requires_grad_(True)

    def _unets(self) -> tuple[UNet2DConditionModel, ...]:
        return self.unet, *self._untrained

    def _before(self, *inputs: torch.Tensor) -> torch.Tensor:
        (unet,) = self._untrained
        return unet(*inputs, return_dict=False)[0]

    def _files(self, weights: dict[str, torch.Tensor], older: bool) -> Files:
        """Files that `from_pretrained` of any version opens: unet/ and text_encoder/."""
        names = {"unet": "diffusion_pytorch_model", "text_encoder": "model"}
        files: Files = {}
        for name, weight in weights.items():
            part, _, inner = name.partition(".")
            inner = inner if older else hub_name(part, inner)
            files.setdefault(f"{part}/{names[part]}.safetensors", {})[inner] = weight
        return files

    def describe(self, folder: Path) -> None:
        """Add the configs to a checkpoint, so that its parts open as models."""
        for path in sorted(folder.glob("*/*.safetensors")):
            part = getattr(self, path.parent.name.removesuffix("_ema"))
            if isinstance(part, UNet2DConditionModel):
                part.save_config(path.parent)
            else:
                part.config.save_pretrained(path.parent)

    def _save(self, folder: Path, weights: dict[str, torch.Tensor], manifest: dict) -> None:
        """A whole pipeline."""
        dtype = DTYPES[self.config.save_dtype]
        base = open_base(self.config).components if self.config.shard else self.pipe.components
        left_out = ("text_encoder",) if self.config.skip_save_text_encoder else ()
        parts = dict.fromkeys(left_out) | {
            name: part_in(dtype, part, _below(name, weights))
            for name, part in base.items()
            if isinstance(part, torch.nn.Module) and name not in left_out
        }
        pipe = StableDiffusionPipeline(
            **self.pipe.components | parts,
            requires_safety_checker=self.pipe.config.requires_safety_checker,
        )
        write_pipeline(pipe, folder)


class LoraWeights(Learner):
    """LoRA: two small matrices beside each attention layer (Hu et al. 2021); the rest is frozen.

    Under mixed precision the frozen weights are in half precision.
    """

    def _choose(self) -> None:
        half = DTYPES.get(self.config.mixed_precision or "no")
        targets = {"unet": self.config.lora_target_modules, "text_encoder": LORA_OF_TEXT}
        for name, part in self.named_children():
            if half:
                torch.nn.Module.to(part, dtype=half)  # diffusers' own warns at great length
            config = self._lora(list(targets[name]))
            try:
                with torch.random.fork_rng():
                    torch.manual_seed(self.config.seed)
                    part.add_adapter(config)
            except ValueError as error:  # no such layers, or of a kind that peft has no LoRA for
                raise UserError(
                    f"--lora_target_modules {' '.join(targets[name])}: the {name} has no such "
                    f"layers, or none that can be adapted ({reason_of(error):.200})."
                ) from error
        for weight in self.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()

    def _unets(self) -> tuple[UNet2DConditionModel, ...]:
        return (self.unet,)

    def _before(self, *inputs: torch.Tensor) -> torch.Tensor:
        self.unet.disable_adapters()
        try:
            return self.unet(*inputs, return_dict=False)[0]
        finally:
            self.unet.enable_adapters()

    def _lora(self, targets: list[str]) -> LoraConfig:
        return LoraConfig(
            r=self.config.rank,
            lora_alpha=alpha_of(self.config),
            lora_dropout=self.config.lora_dropout,
            init_lora_weights="gaussian",
            target_modules=targets,
        )

    def _files(self, weights: dict[str, torch.Tensor], older: bool) -> Files:
        """A file that `pipe.load_lora_weights` opens, bit for bit and at full strength."""
        if older:
            return {LORA_FILE: diffusers_names(weights)}
        return {KOHYA_FILE: in_kohya_layout(weights, self.config)}

    def describe(self, folder: Path) -> None:
        """Nothing to add: the names of the matrices say what they are."""

    def _save(self, folder: Path, weights: dict[str, torch.Tensor], manifest: dict) -> None:
        """LoRA files in diffusers' and kohya's layouts; with --merge_lora a pipeline as well."""
        write_lora(folder, weights, self.unet, self.config, manifest)
        if self.config.merge_lora:
            write_pipeline(merged_pipeline(self.config, folder), folder)


def _below(part: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a part of the pipeline, by their names within it."""
    return {
        name.removeprefix(f"{part}."): tensor
        for name, tensor in tensors.items() if name.startswith(f"{part}.")
    }  # fmt: skip


def channels_last(part: torch.nn.Module) -> None:
    """Convert convolution weights to the memory layout of a GPU's half-precision kernels."""
    for weight in part.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def _of_average(path: str) -> str:
    """The path of the average of a file's weights."""
    folder, _, name = path.rpartition("/")
    return f"{folder}_ema/{name}" if folder else f"ema/{name}"


def _averages_first(folder: Path, files: Files) -> Files:
    """The files of a checkpoint, with the averages in place of the weights where it has them."""
    averages = {path: _of_average(path) for path in files}
    return {
        averages[path] if (folder / averages[path]).exists() else path: tensors
        for path, tensors in files.items()
    }


WEIGHTS = {"full": FullWeights, "lora": LoraWeights}
