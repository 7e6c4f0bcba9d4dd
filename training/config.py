"""Every option of a run: one line each, checked once, then frozen."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from errors import UserError

SCHEDULES = (
    "constant",
    "constant_with_warmup",
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
)


def option(
    default: Any, help: str, choices: tuple = (), least: float | None = None, **bounds
) -> Any:
    """A field of `Config`: its default, the line `--help` prints and what values are allowed.

    `least` and `most` are inclusive; `above` and `below` are not.
    """
    metadata = {"help": help, "choices": choices, "bounds": {"least": least, **bounds}}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Config:
    """The options of a training run, named as in diffusers' train_text_to_image.py where they mean the same.

    Raises `UserError` for a value out of bounds, naming the option.
    """

    # fmt: off
    pretrained_model_name_or_path: str = option("",     "base model: a Stable Diffusion pipeline folder or hub id")
    revision: str | None               = option(None,   "branch, tag or commit of a base model on the hub")
    variant: str | None                = option(None,   "file variant of the base model, such as fp16")
    method: str                        = option("full", "which weights learn", ("full",))
    train_text_encoder: bool           = option(False,  "the text encoder learns along with the UNet")
    prediction_type: str | None        = option(None,   "what the UNet predicts; unset: what its scheduler says", (None, "epsilon", "v_prediction", "sample"))

    train_data_dir: str | None      = option(None,    "pictures with metadata.jsonl, .csv or a .txt each, Parquet files, or what datasets' save_to_disk wrote")
    dataset_name: str | None        = option(None,    "data set on the hub")
    dataset_config_name: str | None = option(None,    "configuration of the data set on the hub")
    image_column: str               = option("image", "column of the pictures, in a data set of the hub or of save_to_disk")
    caption_column: str             = option("text",  "column of the captions: a text, or a list of texts of which each step picks one")
    max_train_samples: int | None   = option(None,    "learn from this many pictures, drawn by the seed", least=1)
    resolution: int | None          = option(None,    "pixels a side; unset: the model's own size", least=8)
    center_crop: bool               = option(False,   "crop the middle; otherwise a place drawn by the seed")
    random_flip: bool               = option(False,   "mirror half of the pictures, anew at every step")
    caption_dropout: float          = option(0.1,     "share of empty captions: without them classifier-free guidance wears off", least=0, most=1)
    cache_dir: str | None           = option(None,    "keep encoded pictures here, so that the next run on them starts at once")

    train_batch_size: int            = option(16,    "pictures per process and pass", least=1)
    gradient_accumulation_steps: int = option(1,     "passes per step", least=1)
    num_train_epochs: float          = option(100.0, "times each picture is seen", above=0)
    max_train_steps: int | None      = option(None,  "optimizer steps; overrides --num_train_epochs", least=1)
    seed: int                        = option(0,     "decides order, noise, crops and captions", least=0, most=2**32 - 1)

    learning_rate: float     = option(1e-5,       "peak, reached after warm-up", above=0)
    optimizer: str            = option("adamw",    "muon learns faster from nothing, at a learning rate near 0.02", ("adamw", "muon"))
    lr_scheduler: str        = option("constant", "course of the learning rate", SCHEDULES)
    lr_warmup_steps: int     = option(0,          "steps up to the peak", least=0)
    adam_beta1: float        = option(0.9,        "decay of the mean gradient", least=0, below=1)
    adam_beta2: float        = option(0.999,      "decay of the mean squared gradient", least=0, below=1)
    adam_weight_decay: float = option(1e-2,       "decoupled weight decay", least=0)
    adam_epsilon: float      = option(1e-8,       "added to the root mean squared gradient", above=0)
    max_grad_norm: float     = option(1.0,        "longer gradients are cut to this length", above=0)
    snr_gamma: float | None  = option(None,       "min-SNR loss weights; the paper recommends 5", above=0)
    noise_offset: float      = option(0.0,        "shift of the noise per channel, for darker and lighter pictures", least=0)
    use_ema: bool            = option(False,      "save and preview the moving average of the weights")
    ema_decay: float         = option(0.9999,     "decay of the average; less in the first steps", least=0, below=1)

    mixed_precision: str | None  = option(None,  "number type of the passes; unset: as accelerate is configured, else no", (None, "no", "fp16", "bf16"))
    gradient_checkpointing: bool = option(False, "compute activations twice to save memory")
    allow_tf32: bool             = option(False, "faster float32 on Ampere and later GPUs")
    torch_compile: bool          = option(False, "compile the UNet: slow start, faster steps")

    output_dir: str                     = option("sd-model-finetuned", "the model folder; also takes checkpoints, log and validation pictures")
    save_dtype: str                     = option("fp16",               "number type of the saved model: fp16 halves the folder and draws the same", ("fp16", "bf16", "fp32"))
    checkpointing_steps: int            = option(500,                  "steps between checkpoints", least=1)
    checkpoints_total_limit: int | None = option(None,                 "keep this many checkpoints", least=1)
    resume_from_checkpoint: str | None  = option(None,                 "'latest' or the path of a checkpoint")
    validation_prompts: tuple[str, ...] = option((),                   "draw these along the way, into OUTPUT_DIR/validation")
    validation_steps: int               = option(500,                  "steps between validation pictures", least=1)
    log_every: int                      = option(50,                   "steps between lines of OUTPUT_DIR/log.jsonl", least=1)
    dry_run: bool                       = option(False,                "check the options and the data, print the plan and stop")
    # fmt: on

    def __post_init__(self):
        for each in fields(self):
            _check(each, getattr(self, each.name))
        if not self.pretrained_model_name_or_path:
            raise UserError("No base model is named: add --pretrained_model_name_or_path FOLDER.")
        if (self.train_data_dir is None) == (self.dataset_name is None):
            raise UserError("Name the data once: either --train_data_dir or --dataset_name.")
        if self.resolution is not None and self.resolution % 8:
            raise UserError(f"--resolution is {self.resolution}; it must be a multiple of 8.")
        if any(not prompt.strip() for prompt in self.validation_prompts):
            raise UserError(
                "--validation_prompts has a blank prompt; give every prompt some words."
            )

    @classmethod
    def from_arguments(cls, arguments: Sequence[str] | None = None, about: str = "") -> "Config":
        """Options from the command line (`sys.argv` if None)."""
        parser = argparse.ArgumentParser(description=about, allow_abbrev=False)
        for each in fields(cls):
            parser.add_argument(f"--{each.name}", **_argument(each))
        return cls(**vars(parser.parse_args(arguments)))

    @property
    def output(self) -> Path:
        return Path(self.output_dir)

    @property
    def data(self) -> str:
        """What the user calls the data."""
        return self.train_data_dir or self.dataset_name

    @property
    def adam(self) -> dict:
        """The options of torch's AdamW."""
        return {
            "lr": self.learning_rate,
            "betas": (self.adam_beta1, self.adam_beta2),
            "eps": self.adam_epsilon,
            "weight_decay": self.adam_weight_decay,
        }

    def total_steps(self, pictures: int, global_batch: int) -> int:
        """Optimizer steps of the whole run over `pictures`, `global_batch` of them at a time."""
        return self.max_train_steps or math.ceil(self.num_train_epochs * pictures / global_batch)


def _kind(each) -> type:
    """The type that a value is parsed with: that of the field, less None."""
    return next((kind for kind in get_args(each.type) if kind not in (type(None), ...)), each.type)


def _argument(each) -> dict:
    """What `add_argument` needs to know of a field."""
    default = "" if each.default in (None, "", (), False) else f" (default: {each.default})"
    argument = {
        "default": each.default,
        "help": (each.metadata["help"] + default).replace("%", "%%"),
    }
    if each.type is bool:
        return argument | {"action": "store_true"}
    argument["type"] = _kind(each)
    if each.default == ():
        return argument | {"nargs": "+", "action": _Several, "metavar": "PROMPT"}
    if choices := [choice for choice in each.metadata["choices"] if choice is not None]:
        argument["choices"] = choices
    else:
        argument["metavar"] = each.name.rsplit("_", 1)[-1].upper()
    return argument


class _Several(argparse.Action):
    """Keeps several values as a tuple, as a frozen dataclass should hold them."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, tuple(values))


def _check(each, value) -> None:
    """Raise `UserError` unless `value` is allowed for the field."""
    choices, bounds = each.metadata["choices"], each.metadata["bounds"]
    if choices and value not in choices:
        known = ", ".join(str(choice) for choice in choices if choice is not None)
        raise UserError(f"--{each.name} is {value!r}; choose one of: {known}.")
    if value is None or not isinstance(value, int | float):
        return
    rules = {
        "least": ("at least", lambda bound: value >= bound),
        "above": ("above", lambda bound: value > bound),
        "most": ("at most", lambda bound: value <= bound),
        "below": ("below", lambda bound: value < bound),
    }
    for name, bound in bounds.items():
        words, holds = rules[name]
        if bound is not None and not (math.isfinite(value) and holds(bound)):
            raise UserError(f"--{each.name} is {value}; it must be {words} {bound}.")
