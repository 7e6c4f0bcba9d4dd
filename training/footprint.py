"""What a run takes, measured before the start, on a model without weights.

The base model is built from its configs on the meta device, where tensors have a shape and no
content, and one forward pass is watched there.
"""

import os
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel

from training.fast import speed_up
from training.latents import pictures_at_once
from training.muon import is_matrix
from training.weights import DTYPES, WEIGHTS

CUDA_BYTES = 600_000_000  # its libraries and the gaps between tensors: the one number not counted
DRAWN_AT_ONCE = 8  # validation pictures
STATE = {"adamw": 2, "adamw8bit": 0.5, "muon": 2}  # times the weights; Muon: once a matrix
ROWS = 2  # of the watched pass: tensors of a single row are contiguous by chance, and less copied
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError)  # of odd configs

# What autocast computes in half precision, and what in float32, the latter on GPUs alone.
NARROW = {"conv2d", "linear", "matmul", "bmm", "baddbmm", "scaled_dot_product_attention"}
WIDE = {"group_norm", "layer_norm", "softmax"}


class Needs(NamedTuple):
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


def precision(config) -> str:
    """The number type of the passes; where the options leave it open, accelerate's."""
    return config.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")


class BaseModel:
    """A base model of which only the configs are read.

    Raises one of `UNREADABLE` where there are none, or where they are of another kind of pipeline.
    """

    def __init__(self, config):
        name = config.pretrained_model_name_or_path
        hub = {"revision": config.revision, "cache_dir": config.cache_dir}
        index = DiffusionPipeline.load_config(name, **hub)
        if index["_class_name"] != "StableDiffusionPipeline":
            raise ValueError(f"it is a {index['_class_name']}")
        vae = AutoencoderKL.load_config(name, subfolder="vae", **hub)
        self.text = CLIPTextConfig.from_pretrained(name, subfolder="text_encoder", **hub)
        unet_hub = hub | {"revision": config.non_ema_revision or config.revision}
        self.unet = UNet2DConditionModel.load_config(name, subfolder="unet", **unet_hub)
        parts = vars(self.pipe())
        with torch.device("meta"):
            self.vae = parts["vae"] = AutoencoderKL.from_config(vae).requires_grad_(False)
            if index.get("safety_checker", [None])[0]:
                checker = CLIPConfig.from_pretrained(name, subfolder="safety_checker", **hub)
                parts["safety_checker"] = StableDiffusionSafetyChecker(checker)
        self.bytes = {name: _bytes(part.parameters()) for name, part in parts.items()}
        self.scale = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.measured = {}  # by all that it depends on: measured once for many options

    def pipe(self) -> SimpleNamespace:
        """What learners take of a pipeline, frozen, without memory."""
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(self.unet)
            text_encoder = CLIPTextModel(self.text)
        return SimpleNamespace(
            unet=unet.requires_grad_(False), text_encoder=text_encoder.requires_grad_(False)
        )

    def side(self, config) -> int:
        """Pixels a side of the pictures that it learns from."""
        return config.resolution or self.unet["sample_size"] * self.scale

    def needs(self, config, pictures: int, device: str, processes: int) -> Needs:
        """What a run over `pictures` takes on each of its devices, of type `device`."""
        trace, sharers = self.trace(config, device), processes if config.shard else 1
        weights = trace.learner.weights
        learning = _bytes(weights.values())
        state = int(STATE[config.optimizer_name] * learning)
        if config.optimizer_name == "muon":
            state -= _bytes(weight for name, weight in weights.items() if is_matrix(name, weight))
        average = learning if config.use_ema else 0
        on_cpu, along = device == "cpu", config.train_text_encoder
        lasting = {
            "weights": _bytes(trace.learner.parameters()) // sharers,
            f"state of {config.optimizer_name}": state // sharers,
            "moving average": average // sharers if on_cpu or not config.offload_ema else 0,
            "gradients for other processes": learning if processes > sharers else 0,
            "weights from other processes": trace.gathered if config.shard else 0,
            "VAE": self.bytes["vae"] if config.no_cache or on_cpu else 0,
            "text encoder": self.bytes["text_encoder"] if on_cpu and not along else 0,
            "CUDA": CUDA_BYTES if device == "cuda" else 0,
        }
        gradients, copies, activations, at_once = trace.passing(config, sharers)
        half = f"weights in {precision(config)}"
        passing = {"gradients": gradients, half: copies, "activations": activations}
        saved = learning if config.method == "lora" else 0
        if config.method == "full" or config.merge_lora:
            saved += sum(self.bytes.values())
        return Needs(
            learning={part: trace.learning(part) for part, _ in trace.learner.named_children()},
            memory={name: count for name, count in (lasting | passing).items() if count},
            peaks=self.peaks(config, pictures, device, lasting, at_once),
            checkpoint=learning + state + average,
            model=saved * DTYPES[config.save_dtype].itemsize // 4,
        )

    def peaks(
        self, config, pictures: int, device: str, lasting: dict[str, int], passing: int
    ) -> dict[str, int]:
        """The most bytes at once, by what the run does then."""
        lasts, drawn = sum(lasting.values()), len(config.prompts) * config.num_validation_images
        if config.no_cache:
            size, here = _rows(config), lasts
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
        half, side = DTYPES.get(precision(config)), self.side(config)
        shape = (3, side, side)
        if verb == "decode":
            shape = (self.vae.config.latent_channels, side // self.scale, side // self.scale)
        key = (verb, half, side, device == "cpu")
        if key not in self.measured:
            with torch.no_grad(), Alive() as alive, Autocast(half, device):
                getattr(self.vae, verb)(torch.empty(1, *shape, device="meta"))
            self.measured[key] = alive.most
        return self.measured[key]

    def trace(self, config, device: str) -> "Trace":
        """A watched forward pass of what learns."""
        half, side = DTYPES.get(precision(config)), self.side(config) // self.scale
        plain = replace(
            config, use_ema=False, shard=False, torch_compile=False, gradient_checkpointing=False
        )
        lora = (config.rank, config.lora_target_modules, config.mixed_precision)
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
            with Trace(learner, half, device) as trace:
                learner(x_t, rows, prompt)
            self.measured[key] = trace
        return self.measured[key]


class Attention(torch.autograd.Function):
    """What the fused kernels keep: all but the matrix of every token with every token."""

    @staticmethod
    def forward(ctx, query, key, value):
        out, sums = torch.empty_like(query), query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out


class Autocast(TorchFunctionMode):
    """On the meta device, the number types of autocast to `half`, and fused attention, as `device`
    has them."""

    def __init__(self, half: torch.dtype | None, device: str):
        super().__init__()
        self.half, self.wide = half, WIDE if device != "cpu" else set()
        self.copies = {}  # of weights that learn, in half precision: each is made once

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        if self.half and name in NARROW | self.wide:
            dtype = self.half if name in NARROW else torch.float32
            args = [self._cast(value, dtype) for value in args]
            kwargs = {key: self._cast(value, dtype) for key, value in kwargs.items()}
        if name == "scaled_dot_product_attention":
            return Attention.apply(*args[:3])
        return function(*args, **kwargs)

    def _cast(self, value, dtype: torch.dtype):
        if not (isinstance(value, torch.Tensor) and value.is_floating_point()):
            return value
        if value.dtype == dtype or not (value.is_leaf and value.requires_grad):
            return value.to(dtype)
        if id(value) not in self.copies:
            self.copies[id(value)] = (value, value.to(dtype))
        return self.copies[id(value)][1]


class Saved(NamedTuple):
    """A tensor that autograd keeps."""

    storage: int
    bytes: int
    weight: torch.nn.Parameter | None  # that it is, or is a half-precision copy of
    block: int | None  # that gradient checkpointing may compute twice
    entry: bool  # what the block starts from


class Trace(Autocast):
    """Watches a forward pass of a learner on the meta device: `saved` is what autograd keeps."""

    def __init__(self, learner, half: torch.dtype | None, device: str):
        super().__init__(half, device)
        self.learner = learner
        self.weights = {_key(weight): weight for weight in learner.parameters()}
        self.saved: list[Saved] = []  # in order
        self.alive = []  # the storages: one that is gone could lend its address to another
        self.block, self.largest = None, []  # of each block: whether it is one of the largest
        self.hooks = saved_tensors_hooks(self._keep, lambda tensor: tensor)
        unet = learner.unet
        small = {*unet.modules()} - {*unet.down_blocks[0].modules(), *unet.up_blocks[-1].modules()}
        for module in learner.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = True
                module._gradient_checkpointing_func = partial(self._twice, module not in small)

    def __enter__(self) -> "Trace":
        self.hooks.__enter__()
        return super().__enter__()

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self.hooks.__exit__(*error)

    def _cast(self, value, dtype: torch.dtype):
        cast = super()._cast(value, dtype)
        if id(value) in self.copies:
            self.weights[_key(cast)] = value
        return cast

    def _keep(self, tensor: torch.Tensor, entry: bool = False) -> torch.Tensor:
        weight = self.weights.get(_key(tensor))
        own = weight is not None and weight.dtype == tensor.dtype
        count = 0 if own else tensor.untyped_storage().nbytes()
        self.alive.append(tensor.untyped_storage())
        self.saved.append(Saved(_key(tensor), count, weight, self.block, entry))
        return tensor

    def _twice(self, largest: bool, function: Callable, *inputs):
        """Stands for torch's `checkpoint`: notes what a block starts from, and what is within."""
        self.block = len(self.largest)
        self.largest.append(largest)
        for value in inputs:
            if isinstance(value, torch.Tensor):
                self._keep(value, entry=True)
        try:
            return function(*inputs)
        finally:
            self.block = None

    def learning(self, part: str) -> int:
        """Parameters of a part that learn."""
        weights = self.learner.weights.items()
        return sum(weight.numel() for name, weight in weights if name.startswith(f"{part}."))

    @property
    def gathered(self) -> int:
        """Bytes of weights that a process with a share of all has whole at once: of two blocks."""
        unet = self.learner.unet
        blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
        return 2 * max(_bytes(block.parameters()) for block in blocks)

    def passing(self, config, sharers: int = 1) -> tuple[int, int, int, int]:
        """Bytes that come and go in a step: gradients, weights in half precision, activations.

        The last number is the most of them at once. Gradients are split among `sharers`.
        """
        kept, blocks, course = self._course(config)
        again = {block: sum(counts.values()) for block, counts in blocks.items()}
        due = {id(weight): weight.nbytes // sharers for weight in self.learner.weights.values()}
        gradients = max(due.values()) if config.optimizer_in_backward else sum(due.values())
        # In a step of one pass, gradients come as the backward pass lets go of what it has used.
        come = config.gradient_accumulation_steps == 1 and not config.optimizer_in_backward
        there = 0 if come else gradients
        copies = {_key(copy): copy.nbytes for _, copy in self.copies.values()}
        most = there + sum((copies | kept).values())
        for waiting, block, weight in reversed(course):
            most = max(most, there + waiting + again.get(block, 0))
            there += due.pop(id(weight), 0) if come else 0
        widest = max(each.bytes for each in self.saved if each.weight is None)
        widest = widest * _rows(config) // ROWS  # it has a gradient too, which comes and goes
        activations = self._activations(kept) + widest
        activations += max(map(self._activations, blocks.values()), default=0)
        return gradients, sum(copies.values()), activations, max(most, gradients) + widest

    def _course(self, config) -> tuple[dict, dict, list]:
        """What waits for the backward pass, bytes by storage; the same within each block that is
        computed twice; and for each tensor in order what waits by then, its block, its weight."""
        every = config.gradient_checkpointing_blocks == "all"
        kept, blocks, course, waiting = {}, defaultdict(dict), [], 0
        for storage, count, weight, block, entry in self.saved:
            twice = block is not None and (every or self.largest[block])
            twice = twice and config.gradient_checkpointing
            if entry and not twice:
                continue
            count = count if weight is not None else count * _rows(config) // ROWS
            if storage not in kept and twice and not entry:
                blocks[block][storage] = count
            elif storage not in kept:
                kept[storage] = count
                waiting += count
            course.append((waiting, block if twice else None, weight))
        return kept, blocks, course

    def _activations(self, counts: dict[int, int]) -> int:
        return sum(count for storage, count in counts.items() if storage not in self.weights)


class Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that are made within it: `most` at once."""

    def __init__(self):
        super().__init__()
        self.storages, self.now, self.most = set(), 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and _key(tensor) not in self.storages:
                storage = tensor.untyped_storage()
                self._change(_key(tensor), storage.nbytes())
                weakref.finalize(storage, self._change, _key(tensor), -storage.nbytes())
        return made

    def _change(self, key: int, count: int) -> None:
        self.storages ^= {key}
        self.now += count
        self.most = max(self.most, self.now)


def _rows(config) -> int:
    """Of a pass: each picture of a subject brings one of its class."""
    return config.train_batch_size * (2 if config.with_prior_preservation else 1)


def _key(tensor: torch.Tensor) -> int:
    """The same for all tensors that share memory."""
    return tensor.untyped_storage()._cdata


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
