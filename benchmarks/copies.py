"""Are copies of training pictures found, and are honest drawings left in peace?

    python -m benchmarks.copies

makes copies of every kind from the bundled drawings and seeks them as `metrics.py` does, with 20,
64 and 833 training pictures; then it seeks them among drawings that are new, and draws lots for
many models of 64 of these: how many are told to have memorised? `--data FOLDER` takes pictures of
another hand: half of them, by lot, are the training pictures and the others are new. Results:
tables, and JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from diffusers import AutoencoderKL
from PIL import Image, ImageOps

from benchmarks.attributes import reconstructed, tensor
from bundled.creatures import draw
from core.errors import exit_with_sentence
from core.images import perceptual_hash
from evaluation.clip_score import BUNDLED, Scorer
from evaluation.image_registration import reduced
from evaluation.memorisation import UNLIKELY, ImageSignatures, Memorisation, memorisation
from evaluation.reference_images import read_pictures

TRAINING = 20, 64, 833  # pictures
NEW_SEEDS = 91_000_000  # from here on; never trained on, nor were the limits chosen on them
COPIES = 60  # of each kind, at most one of a training picture
PICTURES = 64  # of a model
BLENDED = 0.2  # of another training picture
NOISE = 8  # standard deviation, 0..255
SIDE = 128  # pixels
SHIFT = 8  # of these, at most

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def as_jpeg(image: Image.Image, _: np.random.Generator) -> Image.Image:
    content = BytesIO()
    image.save(content, "JPEG", quality=90)
    return Image.open(content).convert("RGB")


def noisy(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image) + rng.normal(0, NOISE, (*image.size[::-1], 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def cropped(share: float, image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """`share` of its sides, anywhere, at the size of the whole."""
    side = round(share * image.width)
    left, top = (int(each) for each in rng.integers(0, image.width - side + 1, 2))
    part = image.crop((left, top, left + side, top + side))
    return part.resize(image.size, Image.Resampling.BICUBIC)


def shifted(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Its border goes on where nothing was."""
    around = np.pad(np.asarray(image), ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
    left, top = rng.integers(0, 2 * SHIFT + 1, 2)
    return Image.fromarray(around[top : top + image.height, left : left + image.width].copy())


def recoloured(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """All hues turned by 60 to 300 degrees."""
    pixels = np.asarray(image.convert("HSV")).copy()
    pixels[..., 0] += np.uint8(rng.integers(43, 214))
    return Image.fromarray(pixels, "HSV").convert("RGB")


def blended(others: Sequence[Image.Image], image: Image.Image, rng: np.random.Generator):
    return Image.blend(image, others[rng.integers(len(others))], BLENDED)


def through(vae: AutoencoderKL, image: Image.Image, _: np.random.Generator) -> Image.Image:
    pixels = reconstructed(vae, tensor([image]))[0].permute(1, 2, 0)
    return Image.fromarray(pixels.numpy())


def kinds(vae: AutoencoderKL, training: Sequence[Image.Image]) -> dict[str, Change]:
    return {
        "exact": lambda image, _: image,
        "JPEG of quality 90": as_jpeg,
        "through the VAE": partial(through, vae),
        "mirrored": lambda image, _: ImageOps.mirror(image),
        "mild noise": noisy,
        "crop of 95 %": partial(cropped, 0.95),
        "crop of 90 %": partial(cropped, 0.9),
        "shifted": shifted,
        "recoloured": recoloured,
        "blended": partial(blended, training),
    }


def looks_of(scorer: Scorer, images: Sequence[Image.Image]) -> ImageSignatures:
    return ImageSignatures(
        np.concatenate([scorer.features(images[i : i + 64]) for i in range(0, len(images), 64)]),
        [perceptual_hash(image) for image in images],
        np.stack([reduced(image) for image in images]),
    )


def first(looks: ImageSignatures, count: int) -> ImageSignatures:
    return ImageSignatures(looks.features[:count], looks.hashes[:count], looks.reduced[:count])


def found(scorer: Scorer, changes: dict[str, Change], training: Sequence[Image.Image], looks):
    """Of each kind the share of copies that are found to be copies of their own picture."""
    chosen = np.unique(np.linspace(0, len(training) - 1, COPIES).round().astype(int))
    shares = {}
    for name, change in changes.items():
        rng = np.random.default_rng(0)
        copies = [change(training[number], rng) for number in chosen]
        nearest = memorisation(looks_of(scorer, copies), looks).nearest
        right = [each.copy and each.number == n for each, n in zip(nearest, chosen, strict=True)]
        shares[name] = sum(right) / len(right)
    return shares


def alarms(memory: Memorisation, models: int) -> dict:
    """Of new drawings the share that is called copies, and of models of PICTURES of them, drawn by
    lot, the share that is told to have memorised."""
    rng, told = np.random.default_rng(0), 0
    for _ in range(models):
        lot = rng.choice(len(memory.nearest), PICTURES, replace=False)
        model = Memorisation(tuple(memory.nearest[i] for i in lot), share=memory.share)
        told += model.copies > 0 and model.by_chance < UNLIKELY
    return {
        "pictures": len(memory.nearest), "copies": memory.copies,
        "models": models, "alarms": told, "share": memory.share,
    }  # fmt: skip


def main() -> None:
    options = parse()
    scorer = Scorer.load(BUNDLED)
    vae = AutoencoderKL.from_pretrained("sd-pokemon-model", subfolder="vae").float()
    images, others = pictures_of(options)
    everything, new = looks_of(scorer, images), looks_of(scorer, others)
    results = {}
    for count in sorted({min(count, len(images)) for count in TRAINING}):
        training, looks = images[:count], first(everything, count)
        results[count] = {
            "found": found(scorer, kinds(vae, training), training, looks),
            "new": alarms(memorisation(new, looks), options.models),
        }
    print(table(results))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n")


def pictures_of(options: argparse.Namespace) -> tuple[list[Image.Image], list[Image.Image]]:
    """Training pictures and new ones of the same hand, RGB of SIDE,SIDE."""
    if options.data is None:
        seeds = range(max(TRAINING)), range(NEW_SEEDS, NEW_SEEDS + options.new)
        return tuple([draw("pokemon", seed).image for seed in some] for some in seeds)
    pictures = [each for part in read_pictures(options.data) for each in part]
    np.random.default_rng(0).shuffle(pictures)
    images = [ImageOps.fit(each.image(), (SIDE, SIDE)) for each in pictures]
    return images[: len(images) // 2][: max(TRAINING)], images[len(images) // 2 :]


def table(results: dict[int, dict]) -> str:
    """Markdown: a row per kind, a column per number of training pictures."""
    head = " | ".join(f"{count} training pictures" for count in results)
    rows = [f"| | {head} |", "| --- |" + " --- |" * len(results)]
    for name in next(iter(results.values()))["found"]:
        shares = (f"{each['found'][name]:.0%}" for each in results.values())
        rows.append(f"| {name} | {' | '.join(shares)} |")
    for name, (part, of) in {
        "new drawings called copies": ("copies", "pictures"),
        "models of new drawings told to have memorised": ("alarms", "models"),
    }.items():
        cells = (f"{r['new'][part]:,} of {r['new'][of]:,}" for r in results.values())
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="pictures of another hand: a folder as for training")
    parser.add_argument("--new", type=int, default=2560, help="drawings (%(default)s)")
    parser.add_argument("--models", type=int, default=10_000, help="by lot (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("outputs/copies.json"))
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_sentence(main)
