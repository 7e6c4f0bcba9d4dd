"""The recipe of the bundled base model and scorer, from nothing.

    python -m bundled.base --work DIR

draws the pictures, then trains, one after the other, the VAE, the text encoder, the UNet (by the
training loop of this project) and the scorer, and puts the results where the project expects them:
`bundled/base-model` and `bundled/clip`. Everything in between lies in DIR; the same command goes
on where it was stopped. On two CPU cores it takes a few hours.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path
from pydoc_data.topics import topics

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from bundled import autoencoder, scorer, text_encoder
from bundled.canvas import SIZE
from bundled.creatures import Drawing, draw, draw_thing, write_folder
from core.errors import exit_with_sentence
from core.files import replaced
from core.model_captions import NOTHING
from training.config import Config
from training.dataset import CaptionedImages
from training.model import write_pipeline

BUNDLED = Path(__file__).resolve().parent
LATENT_SIZE = 16  # 128 px through a VAE that reduces by 8
TEXT_WIDTH = 192
VOCABULARY = 2048
START, END = "<|startoftext|>", "<|endoftext|>"


def main() -> None:
    options = parse()
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    pictures, captions = mixed_pictures(work / "mixed", options.mixed_pictures)
    vae = autoencoder.train(pictures, options.vae_steps, work / "vae", options.device)
    texts = [*captions, *plain_captions(work / "plain", options.plain_pictures)]
    pipe = build_pipeline(vae.cpu(), texts)
    text_encoder.train(
        pipe.text_encoder, pipe.tokenizer, texts, options.text_steps, work / "text", options.device
    )
    write_pipeline(pipe.to("cpu"), work / "untrained")
    NOTHING.save(work / "untrained")
    train_unet(work, options.unet_steps)
    publish(work / "trained", BUNDLED / "base-model")
    scorer.train(
        pictures, captions, work / "untrained" / "tokenizer", options.scorer_steps, work / "scorer",
        BUNDLED / "clip", options.device,
    )  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the bundled base model and scorer.")
    add = parser.add_argument
    add("--work", type=Path, required=True, help="folder for pictures and checkpoints")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--mixed_pictures", type=int, default=12_000, help="pictures for the VAE and the scorer")
    add("--plain_pictures", type=int, default=24_000, help="pictures for the UNet")
    add("--vae_steps", type=int, default=2_600)
    add("--text_steps", type=int, default=300)
    add("--unet_steps", type=int, default=4_000)
    add("--scorer_steps", type=int, default=600)
    return parser.parse_args()


def mixed_drawing(index: int) -> Drawing:
    """Both looks and things, for what must know them all: VAE and scorer."""
    seed = 20_000_000 + index
    if index % 4 == 3:
        return draw_thing(seed, captions=4)
    return draw("plain" if index % 4 == 2 else "pokemon", seed, captions=4)


def plain_drawing(index: int) -> Drawing:
    """Seven creatures to three things in the plain look, for the UNet."""
    seed = 40_000_000 + index
    return draw_thing(seed, captions=3) if index % 10 < 3 else draw("plain", seed, captions=3)


def drawn(drawing, count: int) -> Iterator[Drawing]:
    """`drawing(0)` to `drawing(count - 1)`, in order, on all cores."""
    with Pool(os.cpu_count()) as pool:
        yield from pool.imap(drawing, range(count), chunksize=64)


def mixed_pictures(folder: Path, count: int) -> tuple[torch.Tensor, list[tuple[str, ...]]]:
    """uint8 N,3,128,128 and the captions of each; drawn on the first call, then read back."""
    if not folder.exists():
        write_folder(folder, drawn(mixed_drawing, count))
    images = CaptionedImages(Config(pretrained_model_name_or_path="-", train_data_dir=str(folder)))
    return torch.cat(list(images.batches(256, SIZE))), images.captions


def plain_captions(folder: Path, count: int) -> list[tuple[str, ...]]:
    """The captions of the UNet's pictures, which are drawn on the first call."""
    if not folder.exists():
        write_folder(folder, drawn(plain_drawing, count))
    return CaptionedImages(
        Config(pretrained_model_name_or_path="-", train_data_dir=str(folder))
    ).captions


def train_tokenizer(captions: list[str], size: int = VOCABULARY) -> CLIPTokenizer:
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
        vocab_size=size, initial_alphabet=letters, end_of_word_suffix="</w>",
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
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def build_pipeline(vae: AutoencoderKL, captions: list[tuple[str, ...]]) -> StableDiffusionPipeline:
    """A Stable Diffusion pipeline of that VAE; its text encoder and UNet know nothing yet."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer([caption for several in captions for caption in several])
    encoder = CLIPTextModel(
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


def train_unet(work: Path, steps: int) -> None:
    """The UNet, by the project's own loop: what users run, with other options."""
    import train_text_to_image

    train_text_to_image.main(
        Config(
            pretrained_model_name_or_path=str(work / "untrained"),
            train_data_dir=str(work / "plain"),
            output_dir=str(work / "trained"),
            latents_dir=str(work / "latents"),
            resolution=128,
            center_crop=True,
            mixed_precision="auto",
            train_batch_size=64,
            max_train_steps=steps,
            optimizer="muon",
            learning_rate=0.008,
            lr_scheduler="cosine",
            lr_warmup_steps=50,
            use_ema=True,
            ema_decay=0.999,
            checkpointing_steps=200,
            checkpoints_total_limit=2,
            resume_from_checkpoint="auto",
            validation_prompts=PREVIEWS,
            validation_steps=600,
        )
    )


PREVIEWS = (
    "a red creature with blue wings",
    "a round green creature with a leaf tail",
    "a tall purple creature with two horns and a flame tail",
    "a flat picture of a yellow creature with long ears",
    "a black monster with red bat wings",
    "a blue car",
    "a house with a red roof",
    "an orange cat",
)


def publish(trained: Path, target: Path) -> None:
    """Copy the pipeline, without checkpoints and previews, to where the project looks for it."""
    with replaced(target) as staged:
        shutil.copytree(
            trained,
            staged,
            ignore=shutil.ignore_patterns("checkpoint-*", "validation", "log.jsonl"),
        )
        for path in staged.rglob("*.json"):  # run.json and the configs name folders of this machine
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(f"{trained.parent}{os.sep}", ""), encoding="utf-8")


if __name__ == "__main__":
    exit_with_sentence(main)
