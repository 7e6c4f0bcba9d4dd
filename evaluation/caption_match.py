"""Do pictures fit their own prompts better than each other's?

A CLIP score also tells how much a picture looks like what all prompts of a set are of. So noise,
one picture for all prompts, and right pictures of wrong prompts can score higher than those of a
base, and yet follow nothing. This asks what CLIP R-precision asks (Park et al. 2021): is a prompt
told from the others by its picture?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.statistics import bootstrap_interval, can_give_interval

if TYPE_CHECKING:
    from evaluation.scores import PromptScore, ScoredImage


def exchanged(prompts: Sequence[PromptScore]) -> float | None:
    """The mean CLIP score, 0..100, of the pictures for the prompts of other words, which did not
    ask for them; each prompt's pictures count the same. None where there are none."""
    import numpy as np

    known = _known(prompts)
    if len({words for words, _ in known}) < 2:
        return None
    texts = np.stack([shown[0].text for _, shown in known])
    means = []
    for words, shown in known:
        others = texts[[other != words for other, _ in known]]
        means.append((100 * np.stack([each.features for each in shown]) @ others.T).clip(0).mean())
    return float(np.mean(means))


def margins(prompts: Sequence[PromptScore]) -> tuple[float, ...]:
    """Of each prompt with a picture, 100 times by how much the cosine of its pictures with it is
    above the mean cosine with prompts of other words; empty where that is not known."""
    import numpy as np

    known = _known(prompts)
    alike = Counter(words for words, _ in known)
    if len(alike) < 2:
        return ()
    same = np.array([alike[words] for words, _ in known])
    pictures = np.stack([np.mean([each.features for each in shown], axis=0) for _, shown in known])
    texts = np.stack([shown[0].text for _, shown in known]).astype("float64")
    own = (pictures * texts).sum(1)
    others = (pictures @ texts.sum(0) - same * own) / (len(known) - same)
    return tuple((100 * (own - others)).tolist())


def _known(prompts: Sequence[PromptScore]) -> list[tuple[str, list[ScoredImage]]]:
    """Each prompt with its pictures of which the features are known; those without are left out."""
    seen = [(one.prompt, [each for each in one.shown if each.text is not None]) for one in prompts]
    return [(words, shown) for words, shown in seen if shown]


def fit_any(found: Sequence[float], confidence: float = 0.95) -> bool:
    """Whether pictures with these margins may fit the other prompts as well as their own. False
    where there are too few to say."""
    if not can_give_interval(found):
        return False
    return bootstrap_interval(found, confidence=confidence)[0] <= 0
