"""Memory and disk needs of a run, measured before the start on a model without weights.

The base model is built from its configs on the meta device, where tensors have a shape and no
content, and a forward pass is traced there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel

from core.errors import reason_of
from core.hub import find
from core.model_check import check_files
from training.config import Config
from training.cpu_speedups import speed_up
from training.dataset import bucket_shape, pictures_per_step
from training.latents import pictures_at_once
from training.memory_trace import ROWS, Autocast, LiveBytes, MemoryTrace, bytes_of, pictures_of_pass
from training.model import DTYPES
from training.optimizers import OPTIMIZERS
from training.weights import WEIGHTS

CUDA_BYTES = 600_000_000  # its libraries and the gaps between tensors: the one number not counted
DRAWN_AT_ONCE = 8  # validation pictures


class UnknownMemory(Exception):
    """The configs of a base model are missing or invalid; the message says how, in a few words."""


@contextmanager
def odd_configs() -> Iterator[None]:
    """Context for library calls on configs alone: whatever they raise becomes `UnknownMemory`."""
    try:
        yield
    except Exception as error:  # each library has errors of its own
        raise UnknownMemory(type(error).__name__) from error


@contextmanager
def odd_shapes() -> Iterator[None]:
    """Context for a traced pass through modules whose configs may not fit each other."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise UnknownMemory(f"its parts do not fit each other: {reason_of(error):.200}") from error


class MemoryNeeds(NamedTuple):
    """Needs of a run in bytes: `memory` and `peaks` on the device, the others on disk."""

    learning: dict[str, int]  # trainable parameters, by part of the pipeline
    memory: dict[str, int]  # of a step, by purpose
    peaks: dict[str, int]  # by stage of the run
    checkpoint: int
    model: int

    @property
    def peak(self) -> int:
        """Less than the sum of `memory` where gradients replace activations."""
        return max(self.peaks.values())


class BaseModel:
    """A base model of which only the configs are read.

    Raises `UnknownMemory` if there are none, or if they are of another kind of pipeline.
    """

    def __init__(self, config: Config):
        name = config.pretrained_model_name_or_path
        check_files(name)
        find(name)
        hub = {"revision": config.revision, "cache_dir": config.cache_dir}
        unet_hub = hub | {"revision": config.non_ema_revision or config.revision}
        with odd_configs():
            index = dict(DiffusionPipeline.load_config(name, **hub))
            vae = AutoencoderKL.load_config(name, subfolder="vae", **hub)
            self.text = CLIPTextConfig.from_pretrained(name, subfolder="text_encoder", **hub)
            self.unet = UNet2DConditionModel.load_config(name, subfolder="unet", **unet_hub)
        if index.get("_class_name") != "StableDiffusionPipeline":
            raise UnknownMemory(f"it is a {index.get('_class_name')}")
        pipe = self.pipe()
        self.sample_size = pipe.unet.config.sample_size
        self.depth = len(pipe.unet.config.block_out_channels)
        with odd_configs(), torch.device("meta"):
            self.vae = AutoencoderKL.from_config(vae).requires_grad_(False)
            parts = {"unet": pipe.unet, "text_encoder": pipe.text_encoder, "vae": self.vae}
            if index.get("safety_checker", [None])[0]:
                checker = CLIPConfig.from_pretrained(name, subfolder="safety_checker", **hub)
                parts["safety_checker"] = StableDiffusionSafetyChecker(checker)
        self.bytes = {name: bytes_of(part.parameters()) for name, part in parts.items()}
        self.scale = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.measured: dict[tuple, Any] = {}  # cache, by all that a measurement depends on

    def pipe(self) -> SimpleNamespace:
        """The parts of a pipeline that a learner needs, frozen, on the meta device."""
        with odd_configs(), torch.device("meta"):
            unet = UNet2DConditionModel.from_config(self.unet)
            text_encoder = CLIPTextModel(self.text)
        return SimpleNamespace(
            unet=unet.requires_grad_(False),
            text_encoder=text_encoder.requires_grad_(False),
            tokenizer=SimpleNamespace(eos_token_id=self.text.eos_token_id),
        )

    def side(self, config: Config) -> int:
        """Pixels per side of the training pictures."""
        if config.resolution is None and not isinstance(self.sample_size, int):
            raise UnknownMemory(f"the UNet's sample_size is {self.sample_size}")
        return config.resolution or self.sample_size * self.scale

    def pictures_per_step(
        self, config: Config, sizes: Sequence[tuple[int, int]], limit: int
    ) -> float:
        """The mean per step: `limit` unless buckets of pictures of these sizes (W, H) are
        smaller."""
        if not config.aspect_ratio_buckets:
            return limit
        multiple = self.scale * 2 ** (self.depth - 1)
        shapes = Counter(bucket_shape(size, self.side(config), multiple) for size in sizes)
        return pictures_per_step(list(shapes.values()), limit)

    def needs(self, config: Config, pictures: int, device: str, processes: int) -> MemoryNeeds:
        """The needs of a run over `pictures` on each device, of type `device`."""
        trace, sharers = self.trace(config, device), processes if config.shard else 1
        weights = trace.learner.weights
        learning = bytes_of(weights.values())
        state = OPTIMIZERS[config.optimizer_name].state_bytes(weights)
        average = learning if config.use_ema else 0
        on_cpu, along = device == "cpu", config.train_text_encoder
        lasting = {
            "weights": bytes_of(trace.learner.parameters()) // sharers,
            f"state of {config.optimizer_name}": state // sharers,
            "moving average": average // sharers if on_cpu or not config.offload_ema else 0,
            "teacher": self.teacher_bytes(config),
            "weights from other processes": trace.gathered if config.shard else 0,
            "VAE": self.bytes["vae"] if config.no_cache or on_cpu else 0,
            "text encoder": self.bytes["text_encoder"] if on_cpu and not along else 0,
            "CUDA": CUDA_BYTES if device == "cuda" else 0,
        }
        gradients, copies, activations, at_once = trace.passing(config, sharers, processes)
        half = f"weights in {config.mixed_precision}"
        passing = {"gradients": gradients, half: copies, "activations": activations}
        saved = 2 * learning if config.method == "lora" else 0  # in two layouts, in float32
        if config.method == "full" or config.merge_lora:
            parts = sum(self.bytes.values())
            parts -= self.bytes["text_encoder"] if config.skip_save_text_encoder else 0
            saved += parts * DTYPES[config.save_dtype].itemsize // 4
        return MemoryNeeds(
            learning={part: trace.learning(part) for part, _ in trace.learner.named_children()},
            memory={name: count for name, count in (lasting | passing).items() if count},
            peaks=self.peaks(config, pictures, device, lasting, at_once),
            checkpoint=learning + state + average,
            model=saved,
        )

    def teacher_bytes(self, config: Config) -> int:
        """Of the copy of the UNet that --distill learns from; LoRA matrices are switched off
        instead."""
        if not config.distill or config.method == "lora":
            return 0
        half = DTYPES.get(config.mixed_precision or "no", torch.float32)
        return self.bytes["unet"] * half.itemsize // 4

    def peaks(
        self, config: Config, pictures: int, device: str, lasting: dict[str, int], passing: int
    ) -> dict[str, int]:
        """Peak bytes, by stage of the run."""
        lasts, drawn = sum(lasting.values()), len(config.prompts) * config.num_validation_images
        if config.no_cache:
            size, here = pictures_of_pass(config), lasts
        else:  # before training: the whole UNet is there, its training state is not
            size = min(pictures, pictures_at_once((self.side(config), self.side(config))))
            here = self.bytes["unet"] + self.bytes["vae"] + lasting["CUDA"]
        peaks = {"encoding pictures": here + size * self.vae_bytes(config, device, "encode")}
        peaks["training"] = lasts + passing
        if drawn:
            others = self.bytes.keys() - {"unet", "text_encoder" * config.train_text_encoder}
            idle = sum(self.bytes[part] for part in others)
            idle -= lasting["VAE"] + lasting["text encoder"]
            drawing = min(drawn, DRAWN_AT_ONCE) * self.vae_bytes(config, device, "decode")
            peaks["drawing pictures"] = lasts + idle + drawing
        return peaks

    def vae_bytes(self, config: Config, device: str, verb: str) -> int:
        """Peak bytes of the VAE to encode or decode one picture."""
        half, side = DTYPES.get(config.mixed_precision or "no"), self.side(config)
        shape = (3, side, side)
        if verb == "decode":
            shape = (self.vae.config.latent_channels, side // self.scale, side // self.scale)
        key = (verb, half, side, device == "cpu")
        if key not in self.measured:
            with odd_shapes(), torch.no_grad(), LiveBytes() as live, Autocast(half, device):
                getattr(self.vae, verb)(torch.empty(1, *shape, device="meta"))
            self.measured[key] = live.max
        return self.measured[key]

    def trace(self, config: Config, device: str) -> MemoryTrace:
        """A traced forward pass of the learner."""
        half, side = DTYPES.get(config.mixed_precision or "no"), self.side(config) // self.scale
        plain = replace(
            config, use_ema=False, shard=False, torch_compile=False, gradient_checkpointing=False,
            distill=None,
        )  # fmt: skip
        lora = (config.rank, config.lora_target_modules, config.lora_dropout,
                config.mixed_precision)  # fmt: skip
        kind = lora if config.method == "lora" else ()
        key = (kind, config.train_text_encoder, half, side, device == "cpu")
        if key not in self.measured:
            with torch.device("meta"):
                learner = WEIGHTS[config.method](self.pipe(), plain).train()
            if device == "cpu" and not config.torch_compile:
                speed_up(learner.unet)  # as a learner on a CPU does itself
            shape, length = learner.unet.config, self.text.max_position_embeddings
            rows = torch.zeros(ROWS, device="meta")
            prompt = rows.new_zeros(ROWS, length, shape.cross_attention_dim)
            if config.train_text_encoder:
                prompt = rows.new_zeros(ROWS, length, dtype=torch.long)
            x_t = rows.new_zeros(ROWS, shape.in_channels, side, side)
            with odd_shapes(), MemoryTrace(learner, half, device) as trace:
                learner(x_t, rows, prompt)
            self.measured[key] = trace
        return self.measured[key]
