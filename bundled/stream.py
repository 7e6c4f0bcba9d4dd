"""An endless stream of new drawings: other processes draw while this one trains on what is there.

A picture is seen a few times and then gives way to a newer one, so that a network on a GPU does
not learn a fixed set by heart, and no disk holds it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue

import numpy as np
import torch
from transformers import CLIPTokenizer

from bundled.scenes import Drawn

CHUNK = 256  # pictures that a process draws at a time
WAITING = 8  # chunks that each process may have in work or done, and not yet taken


@dataclass(frozen=True)
class Chunk:
    """Pictures, uint8 N,3,H,W, and the token ids of the captions of each, int64 N,C,77."""

    pictures: torch.Tensor
    ids: torch.Tensor


class Stream:
    """Drawings number `first`, `first` + 1 and so on, of `draw`, a function that pickles."""

    def __init__(self, draw: Callable[[int], Drawn], tokenizer: CLIPTokenizer, first: int):
        """To be made before this process uses a GPU, which the others must not inherit."""
        self.draw, self.next = partial(drawings, draw, tokenizer), first
        workers = max(1, (os.cpu_count() or 1) - 1)
        self.pool = multiprocessing.Pool(workers)
        self.ready: SimpleQueue[tuple[np.ndarray, np.ndarray] | BaseException] = SimpleQueue()
        for _ in range(workers * WAITING):
            self._submit()

    def _submit(self) -> None:
        numbers = range(self.next, self.next + CHUNK)
        self.next += CHUNK
        self.pool.apply_async(
            self.draw, (numbers,), callback=self.ready.put, error_callback=self.ready.put
        )

    def take(self, wait: bool = False) -> Chunk | None:
        """The next chunk, if it is there; with `wait`, in any case."""
        try:
            part = self.ready.get(block=wait)
        except Empty:
            return None
        if isinstance(part, BaseException):
            raise part
        self._submit()
        pictures, ids = part
        return Chunk(torch.from_numpy(pictures).permute(0, 3, 1, 2), torch.from_numpy(ids))

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error) -> None:
        self.pool.terminate()


def drawings(
    draw: Callable[[int], Drawn], tokenizer: CLIPTokenizer, numbers: range
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 N,H,W,3, and the token ids of the captions of each: what a process of the
    pool does, so that the one that trains has nothing to do but to train."""
    several = [draw(number) for number in numbers]
    pictures = np.stack([np.asarray(one.image.convert("RGB")) for one in several])
    ids = token_ids(tokenizer, [text for one in several for text in one.captions])
    return pictures, ids.view(len(several), -1, ids.shape[-1]).numpy()


def token_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """int64 N,77, as StableDiffusionPipeline makes them of prompts."""
    return tokenizer(
        texts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids  # fmt: skip


class Pool:
    """The newest drawings of a stream on a device, in a form that `encode` gives them."""

    def __init__(
        self,
        stream: Stream,
        encode: Callable[[torch.Tensor], torch.Tensor],
        size: int,
        device: str,
    ):
        """`encode`: uint8 N,3,H,W on the device -> what is kept of them, N,... `size`: of the
        pool, in drawings."""
        self.stream, self.encode, self.size, self.device = stream, encode, size, device
        self.encoded = self.ids = torch.empty(0)
        self.seen = 0  # drawings that went in

    def fill(self, least: int) -> None:
        """Wait until `least` drawings are there."""
        while self.seen < least:
            self._add(self.stream.take(wait=True))

    def batch(self, step: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoded drawings, and for each the token ids of one of its captions, `size` of both."""
        if step % 2 == 0 and (chunk := self.stream.take()):  # not more often: encoding takes time
            self._add(chunk)
        rng = torch.Generator(self.device).manual_seed(step)
        rows = torch.randint(min(self.seen, self.size), (size,), generator=rng, device=self.device)
        which = torch.randint(self.ids.shape[1], (size,), generator=rng, device=self.device)
        return self.encoded[rows], self.ids[rows, which].long()

    def _add(self, chunk: Chunk) -> None:
        encoded = self.encode(chunk.pictures.to(self.device))
        ids = chunk.ids.to(self.device, torch.int16)
        if not self.seen:
            self.encoded = encoded.new_empty(self.size, *encoded.shape[1:])
            self.ids = ids.new_empty(self.size, *ids.shape[1:])
        places = torch.arange(self.seen, self.seen + len(ids), device=self.device) % self.size
        self.encoded[places], self.ids[places] = encoded, ids
        self.seen += len(ids)
