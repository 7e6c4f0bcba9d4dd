"""Presets: what is taught, and how much time it may take, as options of train_text_to_image.py.

A preset is a length of time. How many steps fit into it is measured on this machine, so that its
name is true everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.bounded_json import JSONFault, read
from core.errors import UserError
from core.paths import is_folder

STYLE, WHOLE, SUBJECT = "style", "whole", "subject"  # kinds
QUICK, COFFEE, REAL = "quick", "coffee", "real"
SECONDS = {QUICK: 120, COFFEE: 900, REAL: 8 * 3600}  # that a preset may take
# Seconds of a run that are no steps: starting Python, saving, the report.
AROUND = 25
CHECKPOINTS = 4  # along the way, so that there is something to draw with before the end
MIN_STEPS = 20
# Beyond so many passes over each picture, a model learns them by heart.
MAX_EPOCHS = {QUICK: 120, COFFEE: 150, REAL: 200}
MAX_PROMPTS = 6  # drawn along the way
SMALL_CHANNELS = 256  # of a UNet's first block; Stable Diffusion has 320
OF_SUBJECT, OF_CLASS = "a photo of {words}", "a photo of a {words}"  # their prompts
# With which a step takes as long as with those that somebody chose.
ANY_WORDS = {
    "--instance_prompt": OF_SUBJECT.format(words="sks dog"),
    "--class_prompt": OF_CLASS.format(words="dog"),
}
REHEARSED = "bundled/prior_prompts.txt"
CLASS_IMAGES = {QUICK: 16, COFFEE: 60, REAL: 200}


@dataclass(frozen=True)
class Wish:
    """What somebody wants to teach, as the form has it."""

    base: str  # model folder or hub id
    pictures: str  # folder of the data set
    count: int  # pictures to learn from
    kind: str = STYLE
    preset: str = QUICK
    subject: str = ""  # words for the subject, such as: sks dog
    class_words: str = ""  # and for its class, such as: dog
    prompts: tuple[str, ...] = ()  # drawn along the way
    keep: bool = False  # rehearse what the base knows
    more: tuple[str, ...] = ()  # options that win over those chosen here

    def check(self) -> None:
        """Raises UserError for what nothing can be made of."""
        if self.kind not in (STYLE, WHOLE, SUBJECT) or self.preset not in SECONDS:
            raise UserError("There is no such kind or preset. Choose one of those shown.")
        if self.kind == SUBJECT and not (self.subject.strip() and self.class_words.strip()):
            raise UserError(
                "A subject needs two names: its own, such as 'sks dog', and that of its kind, such "
                "as 'dog'."
            )
        if len(self.prompts) > MAX_PROMPTS:
            raise UserError(
                f"{len(self.prompts)} prompts to draw along the way are too many. Write "
                f"{MAX_PROMPTS}."
            )


def options_of(wish: Wish) -> list[str]:
    """The options of a run, without its length and its folder. Raises UserError."""
    wish.check()
    small = is_small(wish.base)
    rows = min(8 if small else 1, wish.count)
    words = ["--pretrained_model_name_or_path", wish.base, *_data(wish)]
    words += ["--train_batch_size", str(rows), "--mixed_precision", "auto", "--center_crop"]
    if not small:
        words += ["--gradient_accumulation_steps", str(min(4, wish.count))]
        words += ["--gradient_checkpointing"]
    words += _rates(wish, small) + _kept(wish)
    words += ["--log_every", "10" if small else "25", "--resume_from_checkpoint", "auto"]
    if wish.prompts:
        words += ["--validation_prompts", *wish.prompts]
    return merged(words, wish.more)


def _data(wish: Wish) -> list[str]:
    if wish.kind == SUBJECT:
        return ["--instance_data_dir", wish.pictures,
                "--instance_prompt", OF_SUBJECT.format(words=wish.subject.strip())]  # fmt: skip
    return ["--train_data_dir", wish.pictures]


def _rates(wish: Wish, small: bool) -> list[str]:
    """What learns, and how fast. Rates are constant and weights averaged, so that a run can go on
    for as long as one likes."""
    if wish.kind == STYLE:
        rate = "1e-3" if small else "1e-4"
        return ["--method", "lora", "--rank", "16", "--learning_rate", rate, *_average(wish, small)]
    rate = "2e-4" if small else "5e-6" if wish.kind == SUBJECT else "1e-5"
    return ["--method", "full", "--learning_rate", rate, *_average(wish, small)]


def _average(wish: Wish, small: bool) -> list[str]:
    decay = {QUICK: "0.95", COFFEE: "0.98", REAL: "0.995"} if small else {}
    return ["--use_ema", "--ema_decay", decay.get(wish.preset, "0.999")]


def _kept(wish: Wish) -> list[str]:
    """Pictures by the base, which the run learns along so that it goes on knowing them."""
    count = ["--num_class_images", str(CLASS_IMAGES[wish.preset])]
    if wish.kind == SUBJECT:
        called = OF_CLASS.format(words=wish.class_words.strip())
        return ["--with_prior_preservation", "--class_prompt", called, *count]
    if wish.keep:
        return ["--with_prior_preservation", "--prior_prompts", REHEARSED, *count]
    return []


def merged(words: Sequence[str], others: Sequence[str]) -> list[str]:
    """The words of a command line, in which options of `others` win."""
    given = {word.partition("=")[0] for word in others if word.startswith("--")}
    kept, is_kept = [], True
    for word in words:
        if word.startswith("--"):
            is_kept = word not in given
        if is_kept:
            kept.append(word)
    return [*kept, *others]


def length_of(wish: Wish, plan: dict) -> list[str]:
    """The options for the length of a run, by a plan of it with measured times."""
    steps = max(MIN_STEPS, min(_fitting_steps(wish, plan), _useful_steps(wish, plan)))
    every = max(1, round(steps / CHECKPOINTS))
    return [
        "--max_train_steps", str(every * CHECKPOINTS),
        "--checkpointing_steps", str(every), "--validation_steps", str(every),
    ]  # fmt: skip


def is_short_of_pictures(wish: Wish, plan: dict) -> bool:
    """Whether a run ends before its time is over, since more steps would be learning by heart."""
    return _useful_steps(wish, plan) < _fitting_steps(wish, plan)


def _fitting_steps(wish: Wish, plan: dict) -> float:
    """Steps that the time of the preset has room for."""
    seconds = plan["seconds"]
    spare = SECONDS[wish.preset] - AROUND - seconds["load"] - seconds["encode"]
    return (spare - pictures_of(wish) * seconds["picture"]) / seconds["step"]


def _useful_steps(wish: Wish, plan: dict) -> float:
    """Steps after which pictures would be learned by heart."""
    rows = max(1.0, plan["epochs"] * wish.count / max(1, plan["steps"]))  # pictures of a step
    return MAX_EPOCHS[wish.preset] * wish.count / rows


def pictures_of(wish: Wish) -> int:
    """Pictures that a run draws: those of each validation, and those of what is rehearsed."""
    rehearsed = CLASS_IMAGES[wish.preset] if _kept(wish) else 0
    return len(wish.prompts) * (CHECKPOINTS + 1) + rehearsed


def is_small(base: str) -> bool:
    """Whether a base model is far smaller than Stable Diffusion, as the bundled one is."""
    if not is_folder(base):
        return False
    try:
        config = read(Path(base) / "unet" / "config.json")
    except (OSError, JSONFault):
        return False
    channels = config.get("block_out_channels") if isinstance(config, dict) else None
    first = channels[0] if isinstance(channels, list) and channels else None
    return isinstance(first, int) and first < SMALL_CHANNELS
