"""Teaches the text encoder of a thousand things what captions say, before a UNet listens to it.

As `bundled/text_encoder.py` does, and two things more, which a UNet has a hard time finding out by
itself: which thing has which colour and which place (read from the end and the padding, as phrases
are), and which words stand before a word (read from its own state).
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from bundled.fit import fit
from bundled.scenes import Caption
from bundled.text_encoder import SHARPNESS, SPREAD, phrases, told

BATCH = 64
RAREST = 2.5e-4  # share of captions: each of a thousand nouns is above it
BEFORE = 5  # words back that the state of a word tells
ASKED_WORDS = 160  # of a batch, about what stands before them
UNTOLD = -100  # the value of a slot of which a caption says nothing; cross_entropy skips it


class Readout(torch.nn.Module):
    """What is asked of the states of a text encoder: phrases, slots, and the words before."""

    def __init__(self, width: int, shares: dict[str, float], slots: dict[str, dict], words: int):
        super().__init__()
        self.phrases = torch.nn.Linear(width, len(shares))
        self.slots = torch.nn.ModuleDict(
            {slot.replace(" ", "_"): torch.nn.Linear(width, len(values))
             for slot, values in slots.items()}
        )  # fmt: skip
        self.before = torch.nn.ModuleList(torch.nn.Linear(width, words) for _ in range(BEFORE))
        with torch.no_grad():  # it starts by saying of each phrase how common it is
            self.phrases.weight.zero_()
            self.phrases.bias.copy_(torch.tensor(list(shares.values())).logit() / SHARPNESS)

    def summary_loss(self, states, phrases, values) -> torch.Tensor:
        """Of states of end and padding, N,P,D: which phrases N,K are there, which values N,S."""
        logits = self.phrases(states).float() * SHARPNESS
        truth = phrases.unsqueeze(1).expand_as(logits)
        loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum(-1).mean()
        for number, head in enumerate(self.slots.values()):
            logits = head(states).float().transpose(1, 2) * SHARPNESS  # N,V,P
            truth = values[:, number, None].expand(-1, states.shape[1])
            if (truth != UNTOLD).any():
                loss = loss + F.cross_entropy(logits, truth, ignore_index=UNTOLD)
        return loss

    def local_loss(self, states, ids, lengths, rng: Random) -> torch.Tensor:
        """Of states of some words of a batch, N,T,D: the token that stands 0 to BEFORE-1 places
        before; before the first one stands the start."""
        places = torch.arange(ids.shape[1], device=ids.device)
        words = torch.nonzero((places > 0) & (places <= lengths.unsqueeze(1)))
        rows, columns = words[rng.sample(range(len(words)), ASKED_WORDS)].unbind(1)
        return sum(
            F.cross_entropy(
                head(states[rows, columns]).float() * SHARPNESS,
                ids[rows, (columns - back).clamp(min=0)],
            )
            for back, head in enumerate(self.before)
        )


def train(
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    captions: list[Caption],
    steps: int,
    folder: Path,
    device: str = "cpu",
) -> None:
    """Train `text_encoder` in place; resumes from `folder`."""
    torch.manual_seed(2)
    shares = phrases_of([caption.text for caption in captions])
    number = {phrase: index for index, phrase in enumerate(shares)}
    slots = slots_of(captions)
    readout = Readout(text_encoder.config.hidden_size, shares, slots, len(tokenizer))
    model = torch.nn.ModuleDict({"text_encoder": text_encoder, "readout": readout}).to(device)

    def loss_at(step: int) -> torch.Tensor:
        rng = Random(step)
        batch = rng.sample(captions, BATCH)
        ids = tokenizer(
            [caption.text for caption in batch], padding="max_length", truncation=True,
            max_length=tokenizer.model_max_length, return_tensors="pt",
        ).input_ids.to(device)  # fmt: skip
        ends = (ids == tokenizer.eos_token_id).int().argmax(1)
        ids = ids[:, : rng.randint(int(ends.max()) + 1, ids.shape[1])]  # padding costs time
        asked = torch.tensor([
            [end, *(rng.randint(end, ids.shape[1] - 1) for _ in range(SPREAD))]
            for end in ends.tolist()
        ])  # fmt: skip
        truth = torch.zeros(BATCH, len(shares))
        for row, caption in enumerate(batch):
            truth[row, [number[phrase] for phrase in told(caption.text) if phrase in number]] = 1
        values = torch.tensor([
            [known.get(caption.facts.get(slot), UNTOLD) for slot, known in slots.items()]
            for caption in batch
        ])  # fmt: skip
        states = text_encoder(ids)[0]
        summary = states[torch.arange(BATCH).unsqueeze(1), asked.to(device)]
        loss = readout.summary_loss(summary, truth.to(device), values.to(device))
        return loss + readout.local_loss(states, ids, ends, rng)

    fit(model, loss_at, steps=steps, learning_rate=0.01, folder=folder)


def phrases_of(texts: list[str]) -> dict[str, float]:
    """The phrases that are worth telling, of one word or two; see `text_encoder.phrases`."""
    return {phrase: share for phrase, share in phrases(sorted(set(texts)), RAREST).items()
            if phrase.count(" ") < 2}  # fmt: skip


def slots_of(captions: list[Caption]) -> dict[str, dict[str, int]]:
    """Each slot that captions fill, and a number for each of its values."""
    found: dict[str, set[str]] = {}
    for caption in captions:
        for slot, value in caption.facts.items():
            found.setdefault(slot, set()).add(value)
    return {
        slot: {value: index for index, value in enumerate(sorted(found[slot]))}
        for slot in sorted(found)
    }
