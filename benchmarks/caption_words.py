"""Does a bundled text encoder still know what a caption says, or has it forgotten some words?

    python -m benchmarks.caption_words --model bundled/base-model

encodes captions of creatures and reads each part back from the mean of the padding states, which is
most of what a UNet's cross-attention sees of a short caption, with a linear probe: least squares on
two thirds of the captions, judged on the rest. A part is known when the probe is far better than
always giving the commoner answer. Results: a table, and JSON beside it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from transformers import CLIPTextModel, CLIPTokenizer

from bundled.creatures import Creature, rng_of
from core.errors import exit_with_sentence

WORDS = (
    "wings", "horn", "ears", "leaf tail", "flame tail", "lightning tail", "curly tail", "belly",
    "fangs", "spots", "red", "round", "background",
)  # fmt: skip
SEEDS = range(90_000_000, 90_003_000)  # captions that no run has seen
PADDING = 20  # last positions; the captions end long before
RIDGE = 0.1


def captions() -> list[str]:
    rngs = (rng_of("plain", seed) for seed in SEEDS)
    return [Creature.random(rng).caption("plain", rng) for rng in rngs]


@torch.inference_mode()
def states(model: str, texts: list[str]) -> torch.Tensor:
    """Mean of the last padding states of each text: float32 N,D."""
    encoder = CLIPTextModel.from_pretrained(model, subfolder="text_encoder", dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(model, subfolder="tokenizer")
    ids = tokenizer(
        texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True,
        return_tensors="pt",
    ).input_ids  # fmt: skip
    return torch.cat([encoder(part)[0][:, -PADDING:].mean(1) for part in ids.split(250)])


def probed(features: torch.Tensor, truth: torch.Tensor) -> float:
    """Share of unseen captions in which a linear probe tells rightly whether a word is there."""
    inputs = torch.cat([features, torch.ones(len(features), 1)], 1)
    cut = len(inputs) * 2 // 3
    known, answers = inputs[:cut], truth[:cut].float() * 2 - 1
    gram = known.T @ known + RIDGE * torch.eye(known.shape[1])
    weights = torch.linalg.solve(gram, known.T @ answers)
    return float(((inputs[cut:] @ weights > 0) == truth[cut:]).float().mean())


def main() -> None:
    options = parse()
    texts = captions()
    features, results = states(options.model, texts), []
    print("| word | probe | commoner answer |\n| --- | --- | --- |")
    for word in WORDS:
        truth = torch.tensor([word in text for text in texts])
        share = float(truth.float().mean())
        results.append({"word": word, "probe": probed(features, truth), "share": share})
        print(f"| {word} | {results[-1]['probe']:.1%} | {max(share, 1 - share):.1%} |")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="bundled/base-model")
    parser.add_argument("--output", type=Path, default=Path("outputs/caption_words.json"))
    return parser.parse_args()


if __name__ == "__main__":
    exit_with_sentence(main)
