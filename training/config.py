"""The options of a training run: one line each, checked once, then frozen."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from core.command_line import ArgumentParser
from core.errors import UserError
from core.few_steps import FEW_STEPS
from core.paths import is_folder
from training.defaults import LORA_TARGETS, meant_by, rates_in_words
from training.optimizers import OPTIMIZERS, words_of_help
from training.option import argument, check, idle, option
from training.option_conflicts import conflicts

SCHEDULES = ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial")  # fmt: skip


# Headings of --help, by the first option below each.
GROUPS = {
    "pretrained_model_name_or_path": "the usual options",
    "method": "what learns, and LoRA",
    "instance_data_dir": "DreamBooth: one subject; and keeping what the base model knows",
    "validation_prompts": "validation",
    "checkpointing_steps": "checkpoints and the saved model",
    "dataset_config_name": "data",
    "revision": "base model",
    "optimizer": "optimizer and learning rate",
    "snr_gamma": "loss and moving average",
    "gradient_accumulation_steps": "memory and speed",
    "log_every": "log and hub",
    "enable_xformers_memory_efficient_attention": "taken from other scripts' commands",
}


@dataclass(frozen=True)
class Config:
    """The options of a training run, named as in diffusers' example scripts where they mean the
    same.

    Options whose default depends on others are None until they are filled in; `unset` names those.
    Raises `UserError` for a value out of bounds, naming the option.
    """

    unset: ClassVar[frozenset[str]] = frozenset()  # of an instance: the options filled in

    # fmt: off
    pretrained_model_name_or_path: str = option("",                   "base model: a Stable Diffusion pipeline folder or hub id", free=True)
    train_data_dir: str | None         = option(None,                 "pictures with metadata.jsonl, .csv or a .txt, .caption or .json each, Parquet files, WebDataset shards, or what datasets' save_to_disk wrote", free=True)
    dataset_name: str | None           = option(None,                 "data set on the hub, or a folder", free=True)
    output_dir: str                    = option("sd-model-finetuned", "the model folder; also takes checkpoints, log, report and validation pictures", free=True)
    resolution: int | None             = option(None,                 "pixels a side; unset: the model's own size", least=8, free=True)
    train_batch_size: int              = option(16,                   "pictures per process and pass", free=True, least=1)
    num_train_epochs: float            = option(100.0,                "times each picture is seen", free=True, above=0)
    max_train_steps: int | None        = option(None,                 "optimizer steps; overrides --num_train_epochs", free=True, least=1)
    stop_at_step: int | None           = option(None,                 "end after this step with a finished model; schedules stay those of the whole run", least=1, free=True)
    learning_rate: float        = option(None,                 f"peak, reached after warm-up; unset: {rates_in_words()}", above=0)
    mixed_precision: str | None        = option(None,                 "number type of the passes; auto: the fastest here; unset: as accelerate is configured, else no", (None, "auto", "no", "fp16", "bf16"), free=True)
    seed: int                          = option(0,                    "decides order, noise, crops and captions", least=0, most=2**32 - 1)
    dry_run: bool                      = option(False,                "check the options and the data, print the plan and stop", free=True)
    timed_steps: int                   = option(0,                    "with --dry_run: take so many steps and throw them away, to say how long the run will take", free=True, least=0, most=100)
    plan_file: str | None              = option(None,                 "with --dry_run: also write the plan there, as JSON", free=True)

    method: str                   = option(None,         "full: all of the UNet learns; lora: small matrices beside its attention; unset: lora where an option of it is given, else full", (None, "full", "lora"))
    rank: int                     = option(None,         "of LoRA matrices; unset: 4", least=1)
    lora_alpha: float | None             = option(None,         "LoRA's updates count alpha / rank; unset: rank, so once", above=0)
    lora_dropout: float                  = option(0.0,          "share of the inputs of LoRA matrices that is dropped at random in every step", later=True, least=0, below=1)
    lora_target_modules: tuple[str, ...] = option(LORA_TARGETS, "layers of the UNet that get LoRA matrices")
    merge_lora: bool                     = option(False,        "also save a whole model, with the LoRA matrices added in", free=True)
    train_text_encoder: bool             = option(False,        "the text encoder learns along with the UNet")
    skip_save_text_encoder: bool         = option(False,        "save the model without its text encoder, which is that of the base model", free=True)

    instance_data_dir: str | None          = option(None,  "DreamBooth: pictures of one subject, without captions", free=True)
    instance_prompt: str | None            = option(None,  "DreamBooth: what stands for the subject, such as: a photo of sks dog")
    class_data_dir: str | None             = option(None,  "DreamBooth: pictures of the subject's class; unset: OUTPUT_DIR/class", free=True)
    class_prompt: str | None               = option(None,  "DreamBooth: what stands for the class, such as: a photo of a dog")
    with_prior_preservation: bool          = option(False, "learn as many pictures that the base model drew, of the class or of --prior_prompts, so that it goes on knowing them")
    prior_prompts: str | None              = option(None,  "with captioned pictures: what these show, a .txt or .jsonl file of prompts; a picture of each in turn", free=True)
    prior_loss_weight: float               = option(1.0,   "weight of the loss on these pictures", least=0)
    num_class_images: int                  = option(100,   "so many of them; the base model draws what is missing", least=1)
    sample_batch_size: int                 = option(4,     "so many are drawn at once", free=True, least=1)
    prior_generation_precision: str | None = option(None,  "number type in which they are drawn; unset: as --mixed_precision", (None, "no", "fp32", "fp16", "bf16"), free=True)

    validation_prompts: tuple[str, ...] = option((),   "draw these before training and along the way, into OUTPUT_DIR/validation", free=True)
    validation_prompt: str | None       = option(None, "one more of them", free=True)
    num_validation_images: int          = option(1,    "pictures per validation prompt", free=True, least=0)
    validation_scheduler: str           = option("DPMSolverMultistepScheduler", "sampler of the validation pictures", ("DPMSolverMultistepScheduler", "DDPMScheduler"), free=True)
    validation_steps: int               = option(500,  "steps between validations: held-out loss, validation pictures, CLIP score", free=True, least=1)
    validation_epochs: int | None       = option(None, "epochs between validations; overrides --validation_steps", free=True, least=1)
    held_out: float                     = option(0.0,  "share of the pictures that only measure the loss, beside a split called test or validation", least=0, below=1)
    validation_scorer: str | None       = option(None, "score validation pictures by CLIP: local-dir:FOLDER, or an open_clip model such as ViT-B-16/openai", free=True)
    validation_captions: int            = option(0,    "with a scorer: draw this many captions of held-out pictures at every validation as well, one picture each; a verdict needs 16 prompts", free=True, least=0, most=1000)
    validation_keep_prompts: str | None = option(None, "with a scorer: also draw these, to see what is forgotten of what the base model knew: general, things, a .txt or a .jsonl file", free=True)
    validation_copies: int              = option(0,    "with a scorer: also draw this many captions of training pictures, and look for copies of training pictures", free=True, least=0, most=1000)
    early_stopping_patience: int | None = option(None, "stop after so many validations without a better one", free=True, least=1)

    checkpointing_steps: int            = option(500,    "steps between checkpoints", free=True, least=1)
    checkpoints_total_limit: int | None = option(None,   "keep this many checkpoints", free=True, least=1)
    resume_from_checkpoint: str | None  = option(None,   "the path of a checkpoint, 'latest', or 'auto': the latest if there is one", free=True)
    init_from_checkpoint: str | None    = option(None,   "begin with the weights that this checkpoint learned, at step 0: data and options may be others than its own")
    max_skipped_steps: int              = option(10,     "stop after so many steps in a row with a non-finite loss or gradient", free=True, least=1)
    save_dtype: str                     = option("fp16", "number type of the saved model: fp16 halves the folder and draws the same", ("fp16", "bf16", "fp32"), free=True)

    dataset_config_name: str | None    = option(None,      "configuration of the data set on the hub", free=True)
    image_column: str                  = option("image",   "column of the pictures, in a data set of the hub or of save_to_disk", free=True)
    caption_column: str                = option("text",    "column of the captions: a text, or a list of texts of which each step picks one", free=True)
    max_train_samples: int | None      = option(None,      "learn from this many pictures, drawn by the seed", least=1)
    aspect_ratio_buckets: bool         = option(False,     "pictures keep their shape, at about RESOLUTION x RESOLUTION pixels")
    center_crop: bool                  = option(False,     "crop the middle; otherwise a place drawn by the seed")
    random_flip: bool                  = option(False,     "mirror pictures at random, half of them in every step")
    image_interpolation_mode: str      = option("lanczos", "filter that pictures are resized with", ("nearest", "nearest_exact", "box", "bilinear", "hamming", "bicubic", "lanczos"))
    caption_dropout: float | None      = option(None,      "share of empty captions, which classifier-free guidance needs; unset: 0.1, with --instance_prompt or --distill 0", least=0, most=1)
    no_cache: bool                     = option(False,     "encode pictures in every step, at new random crops")
    latents_dir: str | None            = option(None,      "keep encoded pictures here on disk: less memory, and the next run starts at once", free=True)
    dataloader_num_workers: int | None = option(None,      "threads that prepare the next steps; unset: 2, on a CPU, which is busy anyway, 0", free=True, least=0)

    revision: str | None                  = option(None,  "branch, tag or commit of a base model on the hub", free=True)
    non_ema_revision: str | None          = option(None,  "revision that the UNet is taken from, where it is another one", free=True)
    variant: str | None                   = option(None,  "file variant of the base model, such as fp16", free=True)
    cache_dir: str | None                 = option(None,  "cache of models and data of the hub", free=True)
    tokenizer_name: str | None            = option(None,  "a tokenizer of its own: folder or hub id", later=True)
    tokenizer_max_length: int | None      = option(None,  "tokens of a caption that are read; unset: the limit of the tokenizer, 77", later=True, least=2)
    text_encoder_use_attention_mask: bool = option(False, "the text encoder ignores the padding of captions", later=True)
    pre_compute_text_embeddings: bool     = option(False, "keep the captions encoded even where that takes more than 4 GB; below, that is always done", later=True)
    prediction_type: str | None           = option(None,  "what the UNet predicts; unset: what its scheduler says", (None, "epsilon", "v_prediction", "sample"), free=True)

    optimizer: str              = option("adamw",    words_of_help(), tuple(OPTIMIZERS))
    use_8bit_adam: bool         = option(False,      "the same as --optimizer adamw8bit")
    optimizer_in_backward: bool = option(False,      "apply and drop each gradient as soon as it is there: saves their memory; each is cut to --max_grad_norm by itself, so the run learns something else")
    scale_lr: bool              = option(False,      "multiply the learning rate by the pictures per step")
    lr_scheduler: str           = option("constant", "schedule of the learning rate", SCHEDULES)
    lr_warmup_steps: int        = option(0,          "steps up to the peak", least=0)
    lr_num_cycles: int          = option(1,          "restarts of cosine_with_restarts", least=1)
    lr_power: float             = option(1.0,        "exponent of polynomial", above=0)
    adam_beta1: float           = option(0.9,        "decay of the mean gradient", least=0, below=1)
    adam_beta2: float           = option(0.999,      "decay of the mean squared gradient", least=0, below=1)
    adam_weight_decay: float    = option(1e-2,       "decoupled weight decay", least=0)
    adam_epsilon: float         = option(1e-8,       "added to the root mean squared gradient", above=0)
    max_grad_norm: float        = option(1.0,        "longer gradients are cut to this length", above=0)

    snr_gamma: float | None          = option(None,   "min-SNR loss weights; the paper recommends 5", above=0)
    offset_noise: bool               = option(False,  "the same as --noise_offset 0.1", free=True)
    noise_offset: float       = option(None,   "shift of the noise per channel, for darker and lighter pictures; unset: 0", least=0)
    input_perturbation: float        = option(0.0,    "more noise in the input than in the target; the paper recommends 0.1", least=0)
    distill: int | None              = option(None,   "teach the model to draw in so many steps, without guidance, what it draws in many; from captions alone, the pictures do not count", (None, 1, 2, 4, 5, 8), later=True)
    distill_guidance: float          = option(5.0,    "guidance of the model that --distill learns from", later=True, least=1)
    distill_substeps: int            = option(5,      "its steps for each step of --distill", later=True, least=1, most=50)
    dream_training: bool             = option(False,  "learn from what the UNet predicts itself, as in drawing: slower steps, finer detail")
    dream_detail_preservation: float = option(1.0,    "exponent of --dream_training's share by noise level: higher keeps more detail", above=0)
    use_ema: bool                    = option(False,  "save and preview the moving average of the weights")
    ema_decay: float                 = option(0.9999, "decay of the average; less in the first steps", least=0, below=1)
    offload_ema: bool                = option(False,  "keep the average in the memory of the CPU", free=True)

    gradient_accumulation_steps: int   = option(1,     "passes per step", free=True, least=1)
    gradient_checkpointing: bool       = option(False, "compute activations twice to save memory", free=True)
    gradient_checkpointing_blocks: str = option("all", "largest: only the blocks at full resolution, which hold most of the memory", ("all", "largest"), free=True)
    allow_tf32: bool                   = option(False, "faster float32 on Ampere and later GPUs")
    shard: bool                        = option(False, "split weights, gradients and moments over the processes (FSDP)", free=True)
    torch_compile: bool                = option(False, "compile the UNet: slow start, faster steps")

    log_every: int            = option(50,     "steps between lines of OUTPUT_DIR/log.jsonl", free=True, least=1)
    report_to: str | None     = option(None,   "also log to tensorboard, wandb or another tracker that accelerate knows", free=True)
    tracker_project_name: str = option("text2image-fine-tune", "name of the run for the tracker", free=True)
    logging_dir: str          = option("logs", "folder of the tracker in OUTPUT_DIR", free=True)
    push_to_hub: bool         = option(False,  "upload the saved model to the hub at the end", free=True)
    hub_model_id: str | None  = option(None,   "name of the model on the hub; unset: that of OUTPUT_DIR", free=True)
    hub_token: str | None     = option(None,   "token for the hub, which the list of processes shows; unset: HF_TOKEN, or as logged in", free=True)

    enable_xformers_memory_efficient_attention: bool = idle(False, "PyTorch's own attention is as frugal")
    foreach_ema: bool                     = idle(False, "it is always done so")
    set_grads_to_none: bool               = idle(False, "it is always done so")
    local_rank: int                       = idle(-1,    "accelerate knows it")
    validation_images: tuple[str, ...]    = idle((),    "Stable Diffusion draws from words alone, without a picture to start from")
    class_labels_conditioning: str | None = idle(None,  "the UNet of Stable Diffusion knows no class labels")
    # fmt: on

    def __post_init__(self):
        meant = meant_by({each.name: getattr(self, each.name) for each in fields(self)})
        for name, value in (meant | {"unset": frozenset(meant)}).items():
            object.__setattr__(self, name, value)
        for each in fields(self):
            check(each, getattr(self, each.name))
        for wrong, sentence in conflicts(self):
            if wrong:
                raise UserError(sentence)

    @classmethod
    def from_arguments(cls, arguments: Sequence[str] | None = None, about: str = "") -> "Config":
        """Parse a command line (`sys.argv` if None)."""
        usage = "%(prog)s --pretrained_model_name_or_path MODEL --train_data_dir DIR [options]"
        parser = ArgumentParser(usage=usage, description=about, allow_abbrev=False)
        for each in fields(cls):
            if each.name in GROUPS:
                group = parser.add_argument_group(GROUPS[each.name])
            group.add_argument(f"--{each.name}", **argument(each))
        return cls(**vars(parser.parse_args(arguments)))

    @property
    def output(self) -> Path:
        return Path(self.output_dir)

    @property
    def data(self) -> str:
        """The name that the user has for the data."""
        return self.train_data_dir or self.dataset_name or self.instance_data_dir or ""

    @property
    def prompts(self) -> tuple[str, ...]:
        """All validation prompts; none with --num_validation_images 0."""
        one_more = (self.validation_prompt,) if self.validation_prompt else ()
        return self.validation_prompts + one_more if self.num_validation_images else ()

    @property
    def empty_captions(self) -> float:
        """Share of captions that are replaced by an empty one."""
        if self.caption_dropout is not None:
            return self.caption_dropout
        return 0.0 if self.instance_prompt or self.distill else 0.1

    @property
    def draws(self) -> dict[str, Any]:
        """The settings of a request that the trained model draws with; {} where any do."""
        few = {"steps": self.distill, "guidance_scale": 1.0, "scheduler": FEW_STEPS}
        return few if self.distill else {}

    @property
    def optimizer_name(self) -> str:
        return "adamw8bit" if self.use_8bit_adam else self.optimizer

    @property
    def adam(self) -> dict:
        """The options of torch's AdamW."""
        return {
            "lr": self.learning_rate,
            "betas": (self.adam_beta1, self.adam_beta2),
            "eps": self.adam_epsilon,
            "weight_decay": self.adam_weight_decay,
        }

    @property
    def lasting(self) -> dict:
        """The options that decide the result of a run up to any step, as JSON."""
        lasting: dict[str, object] = {}
        for each in (each for each in fields(self) if not each.metadata["free"]):
            value = getattr(self, each.name)
            if value or not each.metadata["later"]:
                lasting[each.name] = list(value) if isinstance(value, tuple) else value
        return lasting

    @property
    def shown(self) -> dict:
        """The options as saved in run.json: all but secrets."""
        return {name: value for name, value in asdict(self).items() if name != "hub_token"}

    def total_steps(self, pictures: int, global_batch: float) -> int:
        """Optimizer steps of the whole run over `pictures`, `global_batch` of them at a time."""
        return self.max_train_steps or math.ceil(self.num_train_epochs * pictures / global_batch)

    def steps_between_validations(self, pictures: int, global_batch: float) -> int:
        """Optimizer steps from one validation to the next."""
        if self.validation_epochs is None:
            return self.validation_steps
        return math.ceil(self.validation_epochs * pictures / global_batch)


def check_data_folder(config: Config) -> None:
    """Raise UserError if the folder of --train_data_dir is not there."""
    if config.train_data_dir and not is_folder(config.train_data_dir):
        raise UserError(
            f"The data folder {config.train_data_dir} does not exist; check --train_data_dir."
        )
