"""Teaches the bundled text encoder what captions say, before a UNet learns to listen to it.

A text encoder that is trained along with the UNet from nothing forgets the words that change few
pixels ("horns", "a curly tail") before the UNet has learned to draw them, and then never hears of
them again. This one learns beforehand to tell every phrase of a caption, and stays as it is.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from bundled.fit import fit

BATCH = 64
LONGEST = 3  # words of a phrase
RAREST, MAX_COMMON = 2e-3, 0.95  # share of captions: a phrase between them is worth telling
SHARPNESS = 8.0  # of the readout, so that its answers soon become decided ones
SPREAD = 4  # padding positions of each caption that are asked, beside its end


def train(
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    captions: list[tuple[str, ...]],
    steps: int,
    folder: Path,
    device: str = "cpu",
) -> None:
    """Train `text_encoder` in place: phrases of a caption are read from its end and padding states.

    These states are most of what the cross-attention of a UNet sees of a short caption.
    """
    torch.manual_seed(2)
    texts = sorted({caption for several in captions for caption in several})
    shares = phrases(texts)
    number = {phrase: index for index, phrase in enumerate(shares)}
    readout = torch.nn.Linear(text_encoder.config.hidden_size, len(shares))
    with torch.no_grad():  # it starts by saying of each phrase how common it is
        readout.weight.zero_()
        readout.bias.copy_(torch.tensor(list(shares.values())).logit() / SHARPNESS)
    model = torch.nn.ModuleDict({"text_encoder": text_encoder, "readout": readout}).to(device)

    def loss_at(step: int) -> torch.Tensor:
        rng = Random(step)
        batch = rng.sample(texts, BATCH)
        ids = tokenizer(
            batch, padding="max_length", max_length=tokenizer.model_max_length, truncation=True,
            return_tensors="pt",
        ).input_ids  # fmt: skip
        ends = (ids == tokenizer.eos_token_id).int().argmax(1)
        asked = torch.tensor([
            [end, *(rng.randint(end, ids.shape[1] - 1) for _ in range(SPREAD))]
            for end in ends.tolist()
        ])  # fmt: skip
        truth = torch.zeros(BATCH, 1, len(shares))
        for row, caption in enumerate(batch):
            truth[row, 0, [number[phrase] for phrase in told(caption) if phrase in number]] = 1
        states = text_encoder(ids.to(device))[0]
        rows = torch.arange(BATCH).unsqueeze(1)
        logits = readout(states[rows.to(device), asked.to(device)]).float() * SHARPNESS
        truth = truth.to(device).expand_as(logits)
        return F.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum(-1).mean()

    fit(model, loss_at, steps=steps, learning_rate=0.01, folder=folder)


def phrases(captions: list[str], rarest: float = RAREST) -> dict[str, float]:
    """Runs of 1 to LONGEST words that tell captions apart, and the share of captions with each."""
    counts = Counter(phrase for caption in captions for phrase in sorted(told(caption)))
    shares = {phrase: count / len(captions) for phrase, count in sorted(counts.items())}
    return {phrase: share for phrase, share in shares.items() if rarest <= share <= MAX_COMMON}


def told(caption: str) -> set[str]:
    """All runs of 1 to LONGEST words of a caption."""
    words = re.findall(r"[\w-]+", caption.lower())
    return {
        " ".join(words[start : start + length])
        for length in range(1, LONGEST + 1)
        for start in range(len(words) - length + 1)
    }
