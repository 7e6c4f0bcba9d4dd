"""The recipe of the bundled base model and scorer, from nothing.

    pip install resvg-py
    npm install --prefix DIR --ignore-scripts \\
        @iconify-json/fluent-emoji-flat emojibase-data @lobehub/fluent-emoji-3d
    python -m bundled.base --work DIR

renders the icons that the second command brings, then trains, one after the other, the VAE, the
text encoder, the UNet (on drawings that are never twice the same) and the scorer, and puts the
results where the project expects them: `bundled/base-model` and `bundled/clip`. Everything in
between lies in DIR; the same command goes on where it was stopped. `--start MODEL` begins with the
weights of such a model instead of nothing. A quarter of an hour on an H100; days on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from multiprocessing import Pool
from pathlib import Path
from pydoc_data.topics import topics
from random import Random

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bundled import autoencoder, denoiser, scorer, text_encoder
from bundled.creatures import Creature, draw
from bundled.icons import Icons, build, build_second
from bundled.scenes import Caption, Drawn, draw_scene, draw_second, scene_captions
from bundled.stream import Stream
from core.errors import exit_with_sentence
from core.files import replaced
from core.model_captions import NOTHING, Captions
from training import checkpoint_files
from training.model import write_pipeline

BUNDLED = Path(__file__).resolve().parent
CARD = BUNDLED / "base_model_card.md"
LATENT_SIZE = 16  # 128 px through a VAE that reduces by 8
TEXT_WIDTH = 192
VOCABULARY = 4096
START, END = "<|startoftext|>", "<|endoftext|>"
CAPTIONS = 3  # of a picture
TEXT_SEED, MIXED_SEED, UNET_SEED = 50_000_000, 60_000_000, 100_000_000  # of the first drawings
PARTS = ("vae", "text", "unet", "scorer")


def main() -> None:
    options = parse()
    work, icons = options.work, options.work / "icons"
    work.mkdir(parents=True, exist_ok=True)
    build(work, icons)
    if not {"vae", "scorer"}.isdisjoint(options.parts):
        build_second(work, icons, work / "icons-3d")
        drawings = mixed_drawings(work, options.mixed_pictures)
    if "vae" in options.parts:
        train_vae(drawings, work, options)
    if "text" in options.parts:
        train_text(icons, work, options)
    if "unet" in options.parts:
        train_unet(icons, work, options)
        publish(work / "trained", BUNDLED / "base-model", manifest(work, options))
    if "scorer" in options.parts:
        train_scorer(drawings, work, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the bundled base model and scorer.")
    add = parser.add_argument
    add("--work", type=Path, required=True, help="folder for packages, icons and checkpoints")
    add("--start", type=Path, help="a model to begin with instead of nothing")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to train (all)")
    add("--mixed_pictures", type=int, default=60_000, help="pictures for the VAE and the scorer")
    add("--text_pictures", type=int, default=60_000, help="pictures whose captions teach words")
    add("--vae_steps", type=int, default=6_000)
    add("--text_steps", type=int, default=6_000)
    add("--unet_steps", type=int, default=6_000)
    add("--scorer_steps", type=int, default=4_000)
    add("--batch", type=int, default=1_024, help="pictures in a step of the UNet")
    add("--learning_rate", type=float, default=0.014, help="of the UNet")
    add("--eager", action="store_true", help="do not compile the UNet, as on a CPU")
    add("--seconds", type=float, default=math.inf, help="of training, for each part at most")
    return parser.parse_args()


def train_vae(drawings: list[Drawn], work: Path, options: argparse.Namespace) -> None:
    start = AutoencoderKL.from_pretrained(options.start / "vae") if options.start else None
    vae = autoencoder.train(
        stacked(drawings), options.vae_steps, work / "vae-training", options.device,
        options.seconds, start,
    )  # fmt: skip
    vae.cpu().save_pretrained(work / "vae")


def train_text(icons: Path, work: Path, options: argparse.Namespace) -> None:
    """Write the tokenizer and the text encoder."""
    captions = text_captions(icons, options.text_pictures)
    if options.start:
        tokenizer = CLIPTokenizer.from_pretrained(options.start / "tokenizer")
        encoder = CLIPTextModel.from_pretrained(options.start / "text_encoder")
    else:
        tokenizer = train_tokenizer([caption.text for caption in captions])
        encoder = build_text_encoder(tokenizer)
    text_encoder.train(
        encoder, tokenizer, captions, options.text_steps, work / "text-training", options.device,
        options.seconds, known=bool(options.start),
    )  # fmt: skip
    tokenizer.save_pretrained(work / "tokenizer")
    encoder.cpu().save_pretrained(work / "text_encoder")


def train_unet(icons: Path, work: Path, options: argparse.Namespace) -> None:
    """Write the whole pipeline."""
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    captions = list(drawn(partial(unet_captions, icons), 40_000))
    with Stream(partial(scene, icons), tokenizer, UNET_SEED) as stream:
        pipe = build_pipeline(
            AutoencoderKL.from_pretrained(work / "vae"),
            CLIPTextModel.from_pretrained(work / "text_encoder"),
            tokenizer,
        ).to(options.device)
        if options.start:
            unet = UNet2DConditionModel.from_pretrained(options.start / "unet")
            pipe.unet.load_state_dict(unet.float().state_dict())
        drawings = denoiser.train(
            pipe, stream, work / "unet-training", steps=options.unet_steps,
            seconds=options.seconds, batch=options.batch, learning_rate=options.learning_rate,
            compiled=options.device != "cpu" and not options.eager,
        )  # fmt: skip
        (work / "drawings.json").write_text(f"{drawings}\n")
    write_pipeline(pipe.to("cpu"), work / "trained")
    Captions.of(captions, base=NOTHING).save(work / "trained")


def train_scorer(drawings: list[Drawn], work: Path, options: argparse.Namespace) -> None:
    captions = [one.captions for one in drawings]
    tokenizer = train_tokenizer([text for several in captions for text in several])
    scorer.train(
        stacked(drawings), captions, tokenizer, options.scorer_steps, work / "scorer-training",
        BUNDLED / "clip", options.device, options.seconds,
    )  # fmt: skip


def unet_captions(icons: Path, index: int) -> tuple[str, ...]:
    """Of a picture like those that teach the UNet."""
    several = scene_captions(Icons.load(icons), UNET_SEED + index, CAPTIONS)
    return tuple(caption.text for caption in several)


def scene(icons: Path, seed: int) -> Drawn:
    return draw_scene(Icons.load(icons), seed, CAPTIONS)


def mixed_drawings(work: Path, count: int) -> list[Drawn]:
    """All looks, for what must know them all: VAE and scorer."""
    return list(drawn(partial(mixed_drawing, work / "icons", work / "icons-3d"), count))


def mixed_drawing(icons: Path, second: Path, index: int) -> Drawn:
    """Of ten drawings, five scenes, three creatures in the "pokemon" look, two of things in the
    second look."""
    seed = MIXED_SEED + index
    if index % 10 < 5:
        return draw_scene(Icons.load(icons), seed, CAPTIONS)
    if index % 10 < 8:
        creature = draw("pokemon", seed, CAPTIONS)
        return Drawn(creature.image, tuple(Caption(text, {}) for text in creature.captions))
    return draw_second(Icons.load(second), seed, CAPTIONS)


def drawn(drawing, count: int) -> Iterator:
    """`drawing(0)` to `drawing(count - 1)`, in order, on all cores."""
    with Pool(os.cpu_count()) as pool:
        yield from pool.imap(drawing, range(count), chunksize=64)


def stacked(drawings: list[Drawn]) -> torch.Tensor:
    """uint8 N,3,128,128."""
    return torch.stack([autoencoder.pixels(one.image) for one in drawings])


def text_captions(icons: Path, count: int) -> list[Caption]:
    """Captions of scenes, and of creatures in the "pokemon" look, one to ten of them."""
    return [caption for several in drawn(partial(told, icons), count) for caption in several]


def told(icons: Path, index: int) -> tuple[Caption, ...]:
    """Captions of a picture that is not drawn."""
    if index % 11 < 10:
        return scene_captions(Icons.load(icons), TEXT_SEED + index, CAPTIONS)
    rng = Random(f"told {index}")
    creature = Creature.random(rng)
    return tuple(Caption(creature.caption("pokemon", rng), {}) for _ in range(CAPTIONS))


def train_tokenizer(captions: list[str], vocabulary: int = VOCABULARY) -> CLIPTokenizer:
    """A byte-pair CLIP tokenizer: words of captions and common English whole, any text by bytes."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(words, behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    bpe.decoder = decoders.ByteLevel()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=letters, end_of_word_suffix="</w>",
        show_progress=False,
    )  # fmt: skip
    # Python's own language reference stands for common English; captions count for more.
    bpe.train_from_iterator([*captions, *topics.values()], trainer)
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    tokens = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *("".join(pair) for pair in merges),
    ]
    tokens = [*dict.fromkeys(tokens), START, END]
    numbers = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=numbers, merges=merges, model_max_length=77)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained one, of four layers."""
    torch.manual_seed(0)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=4,
            num_attention_heads=6,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_pipeline(
    vae: AutoencoderKL, encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline of these parts; its UNet knows nothing yet."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=autoencoder.LATENT_CHANNELS,
        out_channels=autoencoder.LATENT_CHANNELS,
        block_out_channels=(128, 224, 224),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=7,  # diffusers' name for the number of heads: 7 of 32 channels each
        norm_num_groups=16,
        cross_attention_dim=TEXT_WIDTH,
    )
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction",
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae, encoder, tokenizer, unet, scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def manifest(work: Path, options: argparse.Namespace) -> dict:
    """The content of run.json: how the UNet was made."""
    steps = checkpoint_files.state_of(work / "unet-training")["step"]
    now = datetime.now(UTC)
    return {
        "run_id": f"{now:%Y%m%d-%H%M%S}-base",
        "created": now.isoformat(timespec="seconds"),
        "steps": steps,
        "options": {
            "max_train_steps": steps, "train_batch_size": options.batch, "optimizer": "muon",
            "learning_rate": options.learning_rate, "resolution": 128,
        },
        "dataset": {"pictures": json.loads((work / "drawings.json").read_text())},
        "versions": {package: version(package) for package in ("torch", "diffusers")},
    }  # fmt: skip


def publish(trained: Path, target: Path, run: dict) -> None:
    """Put the pipeline in fp16, with its card and run.json, where the project looks for it."""
    pipe = StableDiffusionPipeline.from_pretrained(
        trained, dtype=torch.float16, local_files_only=True
    )
    with replaced(target) as staged:
        write_pipeline(pipe, staged)
        shutil.copy(trained / "captions.json", staged)
        shutil.copy(CARD, staged / "README.md")
        (staged / "run.json").write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
        for path in (staged / "model_index.json", *staged.glob("*/config.json")):
            config = json.loads(path.read_text(encoding="utf-8"))
            config.pop("_name_or_path", None)  # a folder of this machine
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    exit_with_sentence(main)
