"""What a run takes, measured before the start, on a model without weights.

The base model is built from its configs on the meta device, where tensors have a shape and no
content, and one forward pass is watched there.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel

from core.errors import reason_of
from core.hub import find
from core.model_check import check_files
from training.cpu_speed import speed_up
from training.dataset import bucket_shape, pictures_per_step
from training.latents import pictures_at_once
from training.memory_trace import ROWS, Autocast, LiveBytes, MemoryTrace, bytes_of, rows_of
from training.model import DTYPES
from training.muon import is_matrix
from training.weights import WEIGHTS

CUDA_BYTES = 600_000_000  # its libraries and the gaps between tensors: the one number not counted
DRAWN_AT_ONCE = 8  # validation pictures
STATE = {"adamw": 2, "adamw8bit": 0.5, "muon": 2}  # times the weights; Muon: once a matrix


class UnknownMemory(Exception):
    """The configs of a base model are not there, or odd; the message says how, in a few words."""


@contextmanager
def odd_configs() -> Iterator[None]:
    """Around what libraries do with configs, and nothing of ours: whatever they raise then is
    `UnknownMemory`."""
    try:
        yield
    except Exception as error:  # each library has errors of its own
        raise UnknownMemory(type(error).__name__) from error


@contextmanager
def odd_shapes() -> Iterator[None]:
    """Around a pass through modules whose configs may not fit each other, which we watch."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise UnknownMemory(f"its parts do not fit each other: {reason_of(error):.200}") from error


class MemoryNeeds(NamedTuple):
    """What a run takes: bytes, `memory` and `peaks` on the device, the others on disk."""

    learning: dict[str, int]  # parameters, by part of the pipeline
    memory: dict[str, int]  # of a step, by what it is for
    peaks: dict[str, int]  # the most at once, by what the run does then
    checkpoint: int
    model: int

    @property
    def peak(self) -> int:
        """Less than the sum of `memory` where gradients come as activations go."""
        return max(self.peaks.values())


class BaseModel:
    """A base model of which only the configs are read.

    Raises `UnknownMemory` where there are none, or where they are of another kind of pipeline.
    """

    def __init__(self, config):
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
        self.measured = {}  # by all that it depends on: measured once for many options

    def pipe(self) -> SimpleNamespace:
        """What learners take of a pipeline, frozen, without memory."""
        with odd_configs(), torch.device("meta"):
            unet = UNet2DConditionModel.from_config(self.unet)
            text_encoder = CLIPTextModel(self.text)
        return SimpleNamespace(
            unet=unet.requires_grad_(False),
            text_encoder=text_encoder.requires_grad_(False),
            tokenizer=SimpleNamespace(eos_token_id=self.text.eos_token_id),
        )

    def side(self, config) -> int:
        """Pixels a side of the pictures that it learns from."""
        if config.resolution is None and not isinstance(self.sample_size, int):
            raise UnknownMemory(f"the UNet's sample_size is {self.sample_size}")
        return config.resolution or self.sample_size * self.scale

    def pictures_per_step(self, config, sizes: Sequence[tuple[int, int]], most: int) -> float:
        """On average; `most` unless buckets of pictures of these sizes (W, H) have fewer."""
        if not config.aspect_ratio_buckets:
            return most
        multiple = self.scale * 2 ** (self.depth - 1)
        shapes = Counter(bucket_shape(size, self.side(config), multiple) for size in sizes)
        return pictures_per_step(list(shapes.values()), most)

    def needs(self, config, pictures: int, device: str, processes: int) -> MemoryNeeds:
        """What a run over `pictures` takes on each of its devices, of type `device`."""
        trace, sharers = self.trace(config, device), processes if config.shard else 1
        weights = trace.learner.weights
        learning = bytes_of(weights.values())
        state = int(STATE[config.optimizer_name] * learning)
        if config.optimizer_name == "muon":
            state -= bytes_of(weight for name, weight in weights.items() if is_matrix(name, weight))
        average = learning if config.use_ema else 0
        on_cpu, along = device == "cpu", config.train_text_encoder
        lasting = {
            "weights": bytes_of(trace.learner.parameters()) // sharers,
            f"state of {config.optimizer_name}": state // sharers,
            "moving average": average // sharers if on_cpu or not config.offload_ema else 0,
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

    def peaks(
        self, config, pictures: int, device: str, lasting: dict[str, int], passing: int
    ) -> dict[str, int]:
        """The most bytes at once, by what the run does then."""
        lasts, drawn = sum(lasting.values()), len(config.prompts) * config.num_validation_images
        if config.no_cache:
            size, here = rows_of(config), lasts
        else:  # the UNet is there as well, whole, and nothing yet that learning takes
            size = min(pictures, pictures_at_once((self.side(config), self.side(config))))
            here = self.bytes["unet"] + self.bytes["vae"] + lasting["CUDA"]
        peaks = {"encoding pictures": here + size * self.worked(config, device, "encode")}
        peaks["training"] = lasts + passing
        if drawn:
            others = self.bytes.keys() - {"unet", "text_encoder" * config.train_text_encoder}
            idle = sum(self.bytes[part] for part in others)
            idle -= lasting["VAE"] + lasting["text encoder"]
            drawing = min(drawn, DRAWN_AT_ONCE) * self.worked(config, device, "decode")
            peaks["drawing pictures"] = lasts + idle + drawing
        return peaks

    def worked(self, config, device: str, verb: str) -> int:
        """The most bytes at once that the VAE adds to encode or decode one picture."""
        half, side = DTYPES.get(config.mixed_precision), self.side(config)
        shape = (3, side, side)
        if verb == "decode":
            shape = (self.vae.config.latent_channels, side // self.scale, side // self.scale)
        key = (verb, half, side, device == "cpu")
        if key not in self.measured:
            with odd_shapes(), torch.no_grad(), LiveBytes() as alive, Autocast(half, device):
                getattr(self.vae, verb)(torch.empty(1, *shape, device="meta"))
            self.measured[key] = alive.most
        return self.measured[key]

    def trace(self, config, device: str) -> "MemoryTrace":
        """A watched forward pass of what learns."""
        half, side = DTYPES.get(config.mixed_precision), self.side(config) // self.scale
        plain = replace(
            config, use_ema=False, shard=False, torch_compile=False, gradient_checkpointing=False
        )
        lora = (config.rank, config.lora_target_modules, config.lora_dropout)
        lora += (config.mixed_precision,)
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
