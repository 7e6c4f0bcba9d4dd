"""A base model that knows hundreds of things, in stages: the recipe.

    pip install resvg-py
    npm install --prefix DIR --ignore-scripts @iconify-json/fluent-emoji-flat emojibase-data
    python -m bundled.things --work DIR

goes on from `bundled/base-model`: it renders the icons that the second command brings, teaches the
text encoder their names, and trains the UNet in three stages of more and more things. Everything
lies in DIR; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel, CLIPTokenizer

from bundled import reading
from bundled.base import BUNDLED, drawn, train_tokenizer
from bundled.creatures import draw, write_folder
from bundled.icons import Icons, build
from bundled.scenes import Caption, Drawn, draw_scene, scene_captions
from core.errors import exit_with_sentence
from core.model_captions import Captions, captions_of
from core.terminal import say
from training.config import Config

VOCABULARY = 4096
CAPTIONS = 3  # of a picture
FIRST_SEED = 100_000_000  # of the pictures of stage 1; each stage has as many to itself


@dataclass(frozen=True)
class Stage:
    """A run of the UNet over newly drawn pictures; the last one lets its learning rate fall."""

    number: int
    pictures: int
    steps: int
    batch: int
    learning_rate: float
    lr_scheduler: str = "constant_with_warmup"


STAGES = (
    Stage(1, 60_000, 5_000, 96, 0.008),
    Stage(2, 90_000, 6_000, 96, 0.008),
    Stage(3, 120_000, 10_000, 96, 0.008, "cosine"),
)


def main() -> None:
    options = parse()
    work = options.work
    icons = work / "icons"
    build(work, icons)
    last = start(icons, work, options)
    for stage in STAGES[: options.stages]:
        last = train_stage(stage, last, icons, work)
    say(f"The model lies in {last}.")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a base model that knows many things.")
    add = parser.add_argument
    add("--work", type=Path, required=True, help="folder for packages, pictures and checkpoints")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--base", type=Path, default=BUNDLED / "base-model", help="the model to go on from")
    add("--text_pictures", type=int, default=40_000, help="scenes whose captions teach words")
    add("--text_steps", type=int, default=600)
    add("--stages", type=int, default=len(STAGES), help="how many of them to run")
    return parser.parse_args()


def start(icons: Path, work: Path, options: argparse.Namespace) -> Path:
    """The pipeline to begin with: the earlier model, its text encoder taught all the words."""
    target = work / "start"
    if target.exists():
        return target
    captions = text_captions(icons, options.text_pictures)
    pipe = StableDiffusionPipeline.from_pretrained(options.base, dtype=torch.float32)
    tokenizer = train_tokenizer([caption.text for caption in captions], VOCABULARY)
    encoder = with_vocabulary(pipe.text_encoder, pipe.tokenizer, tokenizer)
    reading.train(encoder, tokenizer, captions, options.text_steps, work / "text", options.device)
    pipe.tokenizer, pipe.text_encoder = tokenizer, encoder.cpu()
    pipe.save_pretrained(target)
    (captions_of(options.base) or Captions()).save(target)  # what it goes on from
    return target


def text_captions(icons: Path, count: int) -> list[Caption]:
    """Captions of scenes of all stages, and of creatures in both looks."""
    with Pool(os.cpu_count()) as pool:
        scenes = pool.map(partial(_told, icons), range(count), chunksize=64)
    creatures = [draw("pokemon", 30_000_000 + i, 2).captions for i in range(count // 10)]
    return [
        *(caption for several in scenes for caption in several),
        *(Caption(text, {}) for several in creatures for text in several),
    ]


def _told(icons: Path, index: int) -> tuple[Caption, ...]:
    return scene_captions(Icons.load(icons), 50_000_000 + index, len(STAGES), CAPTIONS)


def scene(icons: Path, stage: int, seed: int) -> Drawn:
    return draw_scene(Icons.load(icons), seed, stage, CAPTIONS)


def with_vocabulary(
    encoder: CLIPTextModel, known: CLIPTokenizer, tokenizer: CLIPTokenizer
) -> CLIPTextModel:
    """The text encoder for another vocabulary: tokens that both have keep their vectors."""
    torch.manual_seed(0)
    config = encoder.config.to_dict() | {
        "vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    larger = CLIPTextModel(type(encoder.config).from_dict(config))
    weights, old = encoder.state_dict(), known.get_vocab()
    name = next(name for name in weights if name.endswith("token_embedding.weight"))
    vectors = larger.state_dict()[name].clone()
    for token, index in tokenizer.get_vocab().items():
        if token in old:
            vectors[index] = weights[name][old[token]]
    larger.load_state_dict(weights | {name: vectors})
    return larger


def stage_drawings(icons: Path, stage: Stage) -> Iterator[Drawn]:
    first = FIRST_SEED * stage.number
    return drawn(partial(_drawing, icons, stage.number, first), stage.pictures)


def _drawing(icons: Path, stage: int, first: int, index: int) -> Drawn:
    return scene(icons, stage, first + index)


def train_stage(stage: Stage, last: Path, icons: Path, work: Path) -> Path:
    """Draw the pictures of a stage and train the UNet on them, from the model in folder `last`."""
    pictures, target = work / f"stage-{stage.number}", work / f"trained-{stage.number}"
    if (target / "model_index.json").exists():
        return target
    if not pictures.exists():
        write_folder(pictures, stage_drawings(icons, stage))
    import train_text_to_image

    train_text_to_image.main(
        Config(
            pretrained_model_name_or_path=str(last),
            train_data_dir=str(pictures),
            output_dir=str(target),
            latents_dir=str(work / "latents"),
            resolution=128,
            center_crop=True,
            mixed_precision="bf16",
            train_batch_size=stage.batch,
            max_train_steps=stage.steps,
            optimizer="muon",
            learning_rate=stage.learning_rate,
            lr_scheduler=stage.lr_scheduler,
            lr_warmup_steps=50,
            use_ema=True,
            ema_decay=0.999,
            checkpointing_steps=100,
            checkpoints_total_limit=2,
            resume_from_checkpoint="auto",
            validation_prompts=PREVIEWS,
            validation_steps=500,
            log_every=20,
        )
    )
    return target


PREVIEWS = (
    "a cat", "a red car", "two apples", "a blue fox on a yellow background", "a robot", "a pizza",
    "a house", "a sad face", "a cat left of a tree", "a red apple above a blue book",
    "a red creature with blue wings", "a green creature without wings",
)  # fmt: skip


if __name__ == "__main__":
    exit_with_sentence(main)
