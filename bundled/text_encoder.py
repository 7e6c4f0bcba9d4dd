"""Teaches the bundled text encoder what captions say, before a UNet learns to listen to it.

A text encoder that is trained along with the UNet from nothing forgets the words that change few
pixels ("horns", "a curly tail") before the UNet has learned to draw them, and then never hears of
them again. This one learns beforehand, and little more while the UNet does. It is asked for three
things: which phrases a caption holds, which thing has which colour and which place (both read from
the states of the end and the padding, most of what the cross-attention of a UNet sees of a short
caption), and which words stand before a word (read from its own state).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from bundled.fit import fit
from bundled.scenes import Caption

BATCH = 256
LONGEST = 2  # words of a phrase
RAREST, MAX_COMMON = 2.5e-4, 0.95  # share of captions of a phrase; a thousand nouns are between
SHARPNESS = 8.0  # of the readout, so that its answers soon become decided ones
READOUT_FIRST = 200  # steps in which the readout alone learns what a known encoder says
SPREAD = 4  # padding positions of each caption that are asked, beside its end
BEFORE = 5  # words back that the state of a word tells
ASKED_WORDS = 3  # of a caption, about what stands before them
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
            wrong = F.cross_entropy(logits, truth, ignore_index=UNTOLD, reduction="sum")
            loss = loss + wrong / (truth != UNTOLD).sum().clamp(min=1)
        return loss

    def local_loss(self, states, ids, ends) -> torch.Tensor:
        """Of states of some words of a batch, N,T,D: the token that stands 0 to BEFORE-1 places
        before; before the first one stands the start."""
        share = torch.rand(len(ids), ASKED_WORDS, device=ids.device)
        columns = 1 + (share * ends.unsqueeze(1)).long()  # from the first word to the end
        rows = torch.arange(len(ids), device=ids.device).unsqueeze(1)
        asked = states[rows, columns].flatten(0, 1)
        return sum(
            F.cross_entropy(
                head(asked).float() * SHARPNESS,
                ids[rows, (columns - back).clamp(min=0)].flatten(),
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
    seconds: float = math.inf,
    known: bool = False,
) -> None:
    """Train `text_encoder` in place; resumes from `folder`.

    `known`: it was trained before, and must not be led astray by a readout that knows nothing.
    """
    torch.manual_seed(2)
    shares = phrases(sorted({caption.text for caption in captions}))
    slots = slots_of(captions)
    readout = Readout(text_encoder.config.hidden_size, shares, slots, len(tokenizer))
    model = torch.nn.ModuleDict({"text_encoder": text_encoder, "readout": readout}).to(device)
    lessons = Lessons(captions, tokenizer, list(shares), slots, device)

    def loss_at(step: int) -> torch.Tensor:
        text_encoder.requires_grad_(not known or step >= READOUT_FIRST)
        rng = Random(step)
        rows = rng.sample(range(len(captions)), min(BATCH, len(captions)))
        ids, ends, said, values = lessons.batch(rows)
        width = rng.randint(int(max(lessons.ends[row] for row in rows)) + 1, ids.shape[1])
        ids = ids[:, :width]  # padding costs time
        share = torch.rand(len(rows), SPREAD, device=device)
        anywhere = ends.unsqueeze(1) + (share * (width - ends).unsqueeze(1)).long()
        asked = torch.cat([ends.unsqueeze(1), anywhere], dim=1)
        states = text_encoder(ids)[0]
        summary = states[torch.arange(len(rows), device=device).unsqueeze(1), asked]
        return readout.summary_loss(summary, said, values) + readout.local_loss(states, ids, ends)

    fit(model, loss_at, steps=steps, learning_rate=0.01, folder=folder, seconds=seconds)


class Lessons:
    """Captions and all that is asked of them, as tensors on a device."""

    def __init__(
        self,
        captions: list[Caption],
        tokenizer: CLIPTokenizer,
        asked: list[str],
        slots: dict[str, dict[str, int]],
        device: str,
    ):
        number = {phrase: index for index, phrase in enumerate(asked)}
        ids = tokenizer(
            [caption.text for caption in captions], padding="max_length", truncation=True,
            max_length=tokenizer.model_max_length, return_tensors="pt",
        ).input_ids  # fmt: skip
        ends = (ids == tokenizer.eos_token_id).int().argmax(1)
        said = [
            torch.tensor([number[phrase] for phrase in told(caption.text) if phrase in number])
            for caption in captions
        ]
        self.phrases = len(asked)
        self.said = torch.nn.utils.rnn.pad_sequence(
            said, batch_first=True, padding_value=self.phrases
        ).to(device, torch.int64)  # N,P: numbers of phrases; behind them, one that is none
        self.values = torch.tensor([
            [known.get(caption.facts.get(slot), UNTOLD) for slot, known in slots.items()]
            for caption in captions
        ], device=device)  # fmt: skip
        self.ids, self.ends, self.on_device = ids.to(device), ends.tolist(), ends.to(device)

    def batch(self, rows: list[int]) -> tuple[torch.Tensor, ...]:
        """Of some captions: token ids N,77, the places of their ends N, whether each phrase is
        there, float32 N,K, and the values of the slots N,S."""
        numbers = torch.tensor(rows, device=self.ids.device)
        there = torch.zeros(len(rows), self.phrases + 1, device=self.ids.device)
        there.scatter_(1, self.said[numbers], 1.0)
        return self.ids[numbers], self.on_device[numbers], there[:, :-1], self.values[numbers]


def phrases(captions: list[str]) -> dict[str, float]:
    """Runs of 1 to LONGEST words that tell captions apart, and the share of captions with each."""
    counts = Counter(phrase for caption in captions for phrase in sorted(told(caption)))
    shares = {phrase: count / len(captions) for phrase, count in sorted(counts.items())}
    return {phrase: share for phrase, share in shares.items() if RAREST <= share <= MAX_COMMON}


def told(caption: str) -> set[str]:
    """All runs of 1 to LONGEST words of a caption."""
    words = re.findall(r"[\w-]+", caption.lower())
    return {
        " ".join(words[start : start + length])
        for length in range(1, LONGEST + 1)
        for start in range(len(words) - length + 1)
    }


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
