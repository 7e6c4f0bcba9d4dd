"""Whether pictures fit their own prompts better than each other's.

A CLIP score also measures how much a picture looks like what all prompts of a set have in common.
So noise, one picture for all prompts, or good pictures of the wrong prompts can outscore a base and
yet follow nothing. As in CLIP R-precision (Park et al. 2021), a picture that follows its prompt
tells that prompt from the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.statistics import bootstrap_interval, can_give_interval

if TYPE_CHECKING:
    from numpy import ndarray

    from evaluation.scores import PromptScore

Encoded = tuple[str, "ndarray", "ndarray"]  # a prompt; features of its pictures N,D and its words D


def exchanged(prompts: Sequence[PromptScore]) -> float | None:
    """Mean CLIP score (0..100) of pictures with the prompts of other words; each prompt's pictures
    have the same weight. None if all prompts have the same words."""
    import numpy as np

    known = _encoded(prompts)
    if len({words for words, _, _ in known}) < 2:
        return None
    texts = np.stack([text for _, _, text in known])
    means = []
    for words, pictures, _ in known:
        others = texts[[other != words for other, _, _ in known]]
        means.append((100 * pictures @ others.T).clip(0).mean())
    return float(np.mean(means))


def margins(prompts: Sequence[PromptScore]) -> tuple[float, ...]:
    """Per prompt, 100 times the difference between its pictures' cosine with it and their mean
    cosine with prompts of other words; empty if all prompts have the same words."""
    import numpy as np

    known = _encoded(prompts)
    counts = Counter(words for words, _, _ in known)
    if len(counts) < 2:
        return ()
    same = np.array([counts[words] for words, _, _ in known])
    means = np.stack([pictures.mean(axis=0) for _, pictures, _ in known])
    texts = np.stack([text for _, _, text in known]).astype("float64")
    own = (means * texts).sum(1)
    others = (means @ texts.sum(0) - same * own) / (len(known) - same)
    return tuple((100 * (own - others)).tolist())


def _encoded(prompts: Sequence[PromptScore]) -> list[Encoded]:
    """Prompts whose pictures have features; without the pictures that have none."""
    import numpy as np

    found = []
    for prompt in prompts:
        pairs = [
            (each.features, each.text) for each in prompt.images
            if each.features is not None and each.text is not None
        ]  # fmt: skip
        if pairs:
            found.append((prompt.prompt, np.stack([each for each, _ in pairs]), pairs[0][1]))
    return found


def fit_any(margins: Sequence[float], confidence: float = 0.95) -> bool:
    """Whether pictures with these margins may fit other prompts as well as their own. False if
    there are too few to tell."""
    if not can_give_interval(margins):
        return False
    return bootstrap_interval(margins, confidence=confidence)[0] <= 0
