"""The plan before the start: what learns, what memory and disk it takes, what would make it fit.

The base model is built from its configs on the meta device, where tensors have a shape and no
content, and one forward pass is watched there: no weight is loaded. 1 GB is 10^9 bytes.
"""

import os
import shutil
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import psutil
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel

from errors import UserError
from preparing.report import amount
from training.latents import pictures_at_once
from training.muon import is_matrix

CUDA_BYTES = 600_000_000  # its libraries and the gaps between tensors: the one number not counted
CARDS = (8, 12, 16, 24, 40, 80)  # GB
HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}
SAVED_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}  # per parameter
STATE_BYTES = {"adamw": 8, "adamw8bit": 2, "muon": 8}  # per parameter; Muon: 4 for a matrix
PARTS = ("UNet", "text encoder")  # that can learn
TEXT_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj")  # of a text encoder, for LoRA
ROWS = 2  # of the watched pass: tensors of a single row are contiguous by chance, and less copied
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError)  # what odd configs raise

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


@dataclass(frozen=True)
class Plan:
    """What a run will do; `str` of it is for the terminal."""

    facts: dict[str, str]  # in words, by what they are about
    steps: int
    epochs: float
    needs: Needs | None  # None where the configs of the base model cannot be read
    suggestions: tuple[str, ...]  # options that bring the peak down, one after the other

    def __str__(self) -> str:
        lines = (f"{name:12}{words}" for name, words in self.facts.items() if words)
        return "\n".join(line.replace("\n", "\n" + " " * 12) for line in lines)


def plan(config, pictures: int, global_batch: int, processes: int, device: torch.device) -> Plan:
    """The plan of a run over `pictures`, `global_batch` of them per step.

    Raises `UserError` when the disk has no room for two checkpoints and the model.
    """
    steps = config.total_steps(pictures, global_batch)
    epochs = steps * global_batch / pictures
    machine, total, free = memory_of(device)
    rows, passes = config.train_batch_size, config.gradient_accumulation_steps
    facts = {
        "base model": config.pretrained_model_name_or_path,
        "data": f"{config.data}, {pictures:,} pictures",
        "size": f"{config.resolution} px" if config.resolution else "the model's own",
        "learns": " and ".join(PARTS[: 1 + config.train_text_encoder]) + f" ({config.method})",
        "steps": f"{steps:,} of {global_batch} pictures: {epochs:.1f} epochs",
        "a step": f"{rows} x {_several(passes, 'pass')} x {_several(processes, 'process')}",
        "machine": f"{machine}, {size(free)} of {size(total)} free; precision {precision(config)}",
    }
    try:
        base = BaseModel(config)
        needs = base.needs(config, device.type, processes)
    except UNREADABLE as error:
        reason = f"the configs of the base model cannot be read ({type(error).__name__})"
        facts |= {"memory": f"unknown: {reason}", "output": config.output_dir}
        return Plan(facts, steps, epochs, None, ())

    suggestions = suggested(config, lambda c: base.needs(c, device.type, processes).peak, free)
    facts["size"] = f"{base.side(config)} px"
    facts["learns"] += f": {' + '.join(f'{n:,}' for n in needs.learning.values())} parameters"
    facts["memory"] = _listed(needs.memory)
    facts["at most"] = _listed(needs.peaks)
    facts["too much"] = "\n".join(suggestions)
    if config.dry_run:
        facts["cards"] = cards(config, lambda c: base.needs(c, "cuda", processes).peak)
    facts["output"] = f"{config.output_dir}: {disk(config, needs, steps)}"
    return Plan(facts, steps, epochs, needs, suggestions)


def memory_of(device: torch.device) -> tuple[str, int, int]:
    """The name of a device; bytes of its memory in all, and free."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return torch.cuda.get_device_name(device), total, free
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return "Apple GPU", total, total - torch.mps.driver_allocated_memory()
    memory = psutil.virtual_memory()
    return f"{os.cpu_count()} CPU cores", memory.total, memory.available


def precision(config) -> str:
    """The number type of the passes; where the options leave it open, accelerate's."""
    return config.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")


def disk(config, needs: Needs, steps: int) -> str:
    """What goes to disk, against what is free; a checkpoint is deleted after the next is safe.

    Raises `UserError` when not even two checkpoints and the model fit.
    """
    output = config.output.absolute()
    free = shutil.disk_usage(next(p for p in (output, *output.parents) if p.exists())).free
    free += sum(file.stat().st_size for file in output.glob("checkpoint-*/*"))
    written = steps // config.checkpointing_steps
    kept = min(written, config.checkpoints_total_limit or written)
    if min(written, 2) * needs.checkpoint + needs.model > free:
        raise UserError(
            f"{config.output_dir} has {size(free)} of disk free; the model takes "
            f"{size(needs.model)} and each of {amount(min(written, 2), 'checkpoint')} "
            f"{size(needs.checkpoint)}: make room, or choose another --output_dir."
        )
    words = [f"{size(needs.checkpoint)} a checkpoint", f"{size(needs.model)} the model"]
    if kept > 1:
        words.insert(1, f"{size(kept * needs.checkpoint)} the {kept} that stay")
    words = f"{', '.join(words)}; {size(free)} free"
    if min(written, kept + 1) * needs.checkpoint + needs.model > free:
        fit = int((free - needs.model) // needs.checkpoint) - 1
        words += f"\nwarning: not all of that fits; add --checkpoints_total_limit {fit}"
    return words


def suggested(config, peak: Callable, room: float) -> tuple[str, ...]:
    """Options that bring the peak down to `room`, a line for each, with the new peak."""
    steps = ladder(config, peak, room)
    lines = []
    for (before, _), (after, most) in pairwise(steps):
        word = "and" if lines and before.method == after.method else "or" if lines else "with"
        flags = _flags(before if word == "and" else config, after)
        lines.append(f"{size(most):>8}  {word} {flags}")
    if steps[-1][1] > room:
        lines.append(f"{size(room)} are not enough even so: lower --resolution")
    return tuple(lines)


def cards(config, peak: Callable) -> str:
    """What the run takes to fit cards of typical sizes, a line for each."""
    lines = []
    for card in CARDS:
        options, most = ladder(config, peak, card * 1e9)[-1]
        words = f"with {_flags(config, options)}" if options != config else "as it is"
        lines.append(f"{card:>5} GB  {words if most <= card * 1e9 else 'too small'}")
        if words == "as it is" and most <= card * 1e9:
            break
    return "\n".join(lines)


def ladder(config, peak: Callable, room: float) -> list[tuple]:
    """The options as they are, then changed step by step until `peak` is within `room`; with peaks.

    The cheapest comes first, what does not help is left out. LoRA, another method, starts anew.
    """
    half = precision(config) if precision(config) in HALVES else _half_of_this_machine()
    lora = {"method": "lora", "mixed_precision": half}
    steps = []
    for start in ({}, lora) if config.method != "lora" else ({},):
        current = config
        for options in (start, *_rungs(config, half)):
            try:
                tried = replace(current, **options)
            except UserError:  # options that exclude each other
                continue
            most = peak(tried)
            if options is start or most < 0.99 * steps[-1][1]:
                current = tried
                steps.append((current, most))
            if steps[-1][1] <= room:
                return steps
    return steps


def _rungs(config, half: str) -> Iterator[dict]:
    rows, passes = config.train_batch_size, config.gradient_accumulation_steps
    yield {"mixed_precision": half}
    yield {"gradient_checkpointing": True, "gradient_checkpointing_blocks": "largest"}
    yield {"gradient_checkpointing": True, "gradient_checkpointing_blocks": "all"}
    for part in range(2, rows + 1):
        if rows % part == 0:
            smaller = {"train_batch_size": rows // part}
            yield smaller | {"gradient_accumulation_steps": passes * part}
    yield {"use_8bit_adam": True}
    yield {"offload_ema": True}
    yield {"optimizer_in_backward": True}


def _half_of_this_machine() -> str:
    old = torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False)
    return "fp16" if old else "bf16"


def _flags(before, after) -> str:
    """The options of `after` that differ from those of `before`, as they are typed."""
    now = {each.name: getattr(after, each.name) for each in fields(after)}
    new = {name: value for name, value in now.items() if value != getattr(before, name)}
    return " ".join(f"--{name}" if v is True else f"--{name} {v}" for name, v in new.items())


def size(count: float) -> str:
    """Bytes in words."""
    unit, name = (1e9, "GB") if count >= 1e8 else (1e6, "MB") if count >= 1e5 else (1e3, "kB")
    return f"{count / unit:,.2f} {name}"


def _listed(counts: dict[str, int]) -> str:
    return "\n".join(f"{size(count):>8}  {name}" for name, count in counts.items())


def _several(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "es")


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
        self.text_config = CLIPTextConfig.from_pretrained(name, subfolder="text_encoder", **hub)
        vae = AutoencoderKL.load_config(name, subfolder="vae", **hub)
        unet_hub = hub | {"revision": config.non_ema_revision or config.revision}
        self.unet_config = UNet2DConditionModel.load_config(name, subfolder="unet", **unet_hub)
        with torch.device("meta"):
            self.vae = AutoencoderKL.from_config(vae).eval()
            self.parameters = {
                "unet": _count(UNet2DConditionModel.from_config(self.unet_config)),
                "vae": _count(self.vae),
                "text_encoder": _count(CLIPTextModel(self.text_config)),
            }
            if index.get("safety_checker", [None])[0]:
                checker = CLIPConfig.from_pretrained(name, subfolder="safety_checker", **hub)
                self.parameters["safety_checker"] = _count(StableDiffusionSafetyChecker(checker))
        self.scale = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.measured = {}  # by all that it depends on: measured once for many options

    def side(self, config) -> int:
        """Pixels a side of the pictures that it learns from."""
        return config.resolution or self.unet_config["sample_size"] * self.scale

    def needs(self, config, device: str, processes: int) -> Needs:
        """What a run takes on a device of this type."""
        trace, half, on_cpu = self.trace(config, device), precision(config), device == "cpu"
        learning = sum(trace.learning.values())
        state = STATE_BYTES[config.optimizer_name] * learning
        state -= 4 * trace.matrices if config.optimizer_name == "muon" else 0
        average = 4 * learning if config.use_ema else 0
        frozen = {"vae", "text_encoder"} - trace.learning.keys()
        encoders = 4 * sum(self.parameters[part] for part in frozen)
        lasting = {
            "weights": 4 * learning + (2 if half in HALVES else 4) * trace.frozen,
            f"state of {config.optimizer_name}": state,
            "moving average": 0 if config.offload_ema and not on_cpu else average,
            "gradients for other processes": 4 * learning if processes > 1 else 0,
            "encoders": encoders if on_cpu or config.no_cache else 0,
            "CUDA": CUDA_BYTES if device == "cuda" else 0,
        }
        gradients, copies, activations, at_once = trace.passing(config)
        passing = {"gradients": gradients, f"weights in {half}": copies, "activations": activations}
        encoding, training = self.encoding(config), sum(lasting.values()) + at_once
        if config.no_cache:
            encoding += sum(lasting.values())
        else:  # the UNet is there as well, whole, and nothing yet that learning takes
            stays = encoders if on_cpu else 4 * self.parameters["vae"]
            encoding += 4 * self.parameters["unet"] + stays + lasting["CUDA"]
        saved = learning if config.method == "lora" else 0
        if config.method == "full" or config.merge_lora:
            saved += sum(self.parameters.values())
        return Needs(
            learning=trace.learning,
            memory={name: count for name, count in (lasting | passing).items() if count},
            peaks={"encoding pictures": encoding, "training": training},
            checkpoint=4 * learning + state + average,
            model=SAVED_BYTES[config.save_dtype] * saved,
        )

    def encoding(self, config) -> int:
        """The most at once that the VAE adds when it encodes pictures, in float32."""
        side = self.side(config)
        rows = config.train_batch_size if config.no_cache else pictures_at_once((side, side))
        if side not in self.measured:
            with torch.no_grad(), Alive() as alive:
                self.vae.encode(torch.empty(1, 3, side, side, device="meta"))
            self.measured[side] = alive.most
        return rows * self.measured[side]

    def trace(self, config, device: str) -> "Trace":
        """A watched forward pass of what learns."""
        half, side = HALVES.get(precision(config)), self.side(config) // self.scale
        lora = (config.rank, config.lora_target_modules) if config.method == "lora" else None
        key = (lora, config.train_text_encoder, half, side, device == "cpu")
        if key not in self.measured:
            with torch.device("meta"):
                parts = {"unet": UNet2DConditionModel.from_config(self.unet_config).train()}
                if config.train_text_encoder:
                    parts["text_encoder"] = CLIPTextModel(self.text_config).train()
                if lora:
                    _add_lora(parts, config, half)
            self.measured[key] = Trace(parts, half, device)
            with self.measured[key]:
                _pass(parts, self.text_config.max_position_embeddings, side)
        return self.measured[key]


def _add_lora(parts: dict[str, torch.nn.Module], config, half: torch.dtype | None) -> None:
    from peft import LoraConfig

    layers = {"unet": config.lora_target_modules, "text_encoder": TEXT_LAYERS}
    for name, part in parts.items():
        torch.nn.Module.to(part.requires_grad_(False), half or torch.float32)
        part.add_adapter(LoraConfig(r=config.rank, target_modules=list(layers[name])))
        for weight in part.parameters():
            weight.data = weight.data.float() if weight.requires_grad else weight.data


def _pass(parts: dict[str, torch.nn.Module], length: int, side: int) -> None:
    unet = parts["unet"]
    rows = torch.zeros(ROWS, device="meta")
    prompt = rows.new_empty(ROWS, length, unet.config.cross_attention_dim)
    if "text_encoder" in parts:
        prompt = parts["text_encoder"](rows.new_empty(ROWS, length, dtype=torch.long))[0]
    unet(rows.new_empty(ROWS, unet.config.in_channels, side, side), rows, prompt)


class Attention(torch.autograd.Function):
    """What the fused kernels keep: all but the matrix of every token with every token."""

    @staticmethod
    def forward(ctx, query, key, value):
        out, sums = torch.empty_like(query), query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out


class Saved(NamedTuple):
    """A tensor that autograd keeps."""

    storage: int
    bytes: int
    weight: torch.nn.Parameter | None  # that it is, or is a half-precision copy of
    block: int | None  # that gradient checkpointing may compute twice
    entry: bool  # what the block starts from


class Trace(TorchFunctionMode):
    """Watches a forward pass on the meta device: `saved` is what autograd keeps, in order.

    Number types are those of autocast to `half`, and attention is fused, as on `device`.
    """

    def __init__(self, parts: dict[str, torch.nn.Module], half: torch.dtype | None, device: str):
        super().__init__()
        self.half, self.wide = half, WIDE if device != "cpu" else set()
        named = [pair for part in parts.values() for pair in part.named_parameters()]
        self.learning = {name: _count(part, learning=True) for name, part in parts.items()}
        self.frozen = sum(w.numel() for _, w in named if not w.requires_grad)
        self.matrices = sum(w.numel() for n, w in named if w.requires_grad and is_matrix(n, w))
        self.weights = {_key(weight): weight for _, weight in named}
        self.copies = {}  # of weights in half precision, each made once, as by autocast
        self.saved: list[Saved] = []
        self.alive = []  # the storages: one that is gone could lend its address to another
        self.block, self.largest = None, []  # of each block: whether it is at full resolution
        self.hooks = saved_tensors_hooks(self._keep, lambda tensor: tensor)
        outer = ("down_blocks.0", f"up_blocks.{len(parts['unet'].up_blocks) - 1}")
        for name, module in (pair for part in parts.values() for pair in part.named_modules()):
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = True
                module._gradient_checkpointing_func = partial(self._twice, name.startswith(outer))

    def __enter__(self) -> "Trace":
        self.hooks.__enter__()
        return super().__enter__()

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self.hooks.__exit__(*error)

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
            self.copies[id(value)] = value.to(dtype)
            self.weights[_key(self.copies[id(value)])] = value
        return self.copies[id(value)]

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

    def passing(self, config) -> tuple[int, int, int, int]:
        """Bytes that come and go in a step: gradients, weights in half precision, activations.

        The last number is the most of them at once.
        """
        kept, blocks, course = self._course(config)
        again = {block: sum(counts.values()) for block, counts in blocks.items()}
        due = {id(w): 4 * w.numel() for w in self.weights.values() if w.requires_grad}
        gradients = max(due.values()) if config.optimizer_in_backward else sum(due.values())
        # In a step of one pass, gradients come as the backward pass lets go of what it has used.
        come = config.gradient_accumulation_steps == 1 and not config.optimizer_in_backward
        there = 0 if come else gradients
        copies = {_key(copy): copy.nbytes for copy in self.copies.values()}
        most = there + sum((copies | kept).values())
        for waiting, block, weight in reversed(course):
            most = max(most, there + waiting + again.get(block, 0))
            there += due.pop(id(weight), 0) if come else 0
        widest = max(one.bytes for one in self.saved if one.weight is None)
        widest = widest * self._rows(config) // ROWS  # it has a gradient too, that comes and goes
        activations = self._activations(kept) + widest
        activations += max(map(self._activations, blocks.values()), default=0)
        return gradients, sum(copies.values()), activations, max(most, gradients) + widest

    def _course(self, config) -> tuple[dict, dict, list]:
        """What waits for the backward pass, bytes by storage; the same within each block that is
        computed twice; and for each tensor in order what waits by then, its block, its weight.
        """
        rows, every = self._rows(config), config.gradient_checkpointing_blocks == "all"
        kept, blocks, course, waiting = {}, defaultdict(dict), [], 0
        for storage, count, weight, block, entry in self.saved:
            twice = block is not None and (every or self.largest[block])
            twice = twice and config.gradient_checkpointing
            if entry and not twice:
                continue
            count = count if weight is not None else count * rows // ROWS
            if storage not in kept and twice and not entry:
                blocks[block][storage] = count
            elif storage not in kept:
                kept[storage] = count
                waiting += count
            course.append((waiting, block if twice else None, weight))
        return kept, blocks, course

    def _rows(self, config) -> int:
        return config.train_batch_size * (2 if config.with_prior_preservation else 1)

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


def _key(tensor: torch.Tensor) -> int:
    """The same for all tensors that share memory."""
    return tensor.untyped_storage()._cdata


def _count(part: torch.nn.Module, learning: bool = False) -> int:
    weights = (w for w in part.parameters() if w.requires_grad or not learning)
    return sum(weight.numel() for weight in weights)
