"""How often is each verdict wrong where nothing differs, and how often found where something does?

By simulation: scores, features and votes are drawn from known laws, and the project's own functions
judge them. No model has a part in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from statistics import median

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from benchmarks.verdict_laws import MEANS_ALONE, SCORES, kinds_of, source, sphere, unit
from evaluation.comparison import AgainstBase, Comparison, against, compare
from evaluation.mmd import KERNELS, difference, repeats
from evaluation.results import Result, best_of
from evaluation.scores import ModelScores, PromptScore, ScoredImage
from evaluation.vendi import variety
from webapp.votes import Tally, VotePair, Votes, preference_rate

PROMPTS = (16, 64, 256)
MANY = 256  # prompts
EFFECTS = (0.2, 0.35, 0.5)  # mean difference, in standard deviations between prompts
CONTENDERS, CHECKPOINTS = 11, 10
TRAINING = 200  # pictures
FAR = 0.5  # radians
SHIFTS = (0.1, 0.2, 0.3)  # radians
NEARLY = 0.05  # by so much pictures of a collapsed model differ; different ones by SPREAD
MAX_VOTES = 1000
VOTERS = (0.5, 0.6, 0.75)  # shares of votes for the model


@dataclass(frozen=True)
class Rate:
    """How often something was said, of so many trials."""

    hits: int
    trials: int

    @property
    def share(self) -> float:
        return self.hits / self.trials if self.trials else math.nan

    @property
    def error(self) -> float:
        """The standard error of the share."""
        return math.sqrt(self.share * (1 - self.share) / self.trials) if self.trials else math.nan

    def __str__(self) -> str:
        return f"{self.share:.1%} ± {self.error:.1%}"


def fewer(trials: int, count: int) -> range:
    """So many trials; a quarter of them for the most prompts, where one takes longest."""
    return range(max(1, trials // 4 if count >= MANY else trials))


def rate(found: Iterable[bool]) -> Rate:
    found = list(found)
    return Rate(sum(found), len(found))


def scores(name: str, values: ndarray, features=None, texts=None) -> ModelScores:
    """One picture of each prompt, with these scores."""
    nothing = [None] * len(values)
    seen = zip(values.tolist(), nothing if features is None else features,
               nothing if texts is None else texts, strict=True)  # fmt: skip
    return ModelScores(name, None, {}, tuple(
        PromptScore(f"prompt {i}", (ScoredImage(i, score, features=feature, text=text),))
        for i, (score, feature, text) in enumerate(seen)
    ))  # fmt: skip


def comparisons(draw, count: int, trials: int, random: Generator) -> list[Comparison]:
    several = ((scores(*side) for side in zip("mb", draw(random, count), strict=True))
               for _ in fewer(trials, count))  # fmt: skip
    return [compare(*both) for both in several]


WRONG = ("better", "worse")


def equal_scores(trials: int, random: Generator) -> Iterator[dict]:
    """Following and keeping, which are one comparison at other prompts: nothing differs."""
    return _claims(SCORES, trials, random)


def equal_means(trials: int, random: Generator) -> Iterator[dict]:
    """The same, where no more than the means is equal."""
    return _claims(MEANS_ALONE, trials, random)


def _claims(laws: dict, trials: int, random: Generator) -> Iterator[dict]:
    for name, draw in laws.items():
        for count in PROMPTS:
            found = comparisons(draw, count, trials, random)
            yield {
                "scores": name,
                "prompts": count,
                **{word: rate(each.verdict == word for each in found) for word in WRONG},
                "either": rate(each.verdict in WRONG for each in found),
                "interval holds": coverage(found, 0.0),
            }


def coverage(found: list[Comparison], truth: float) -> Rate:
    """How often the 95 % interval holds the truth, where there is one."""
    return rate(
        each.interval[0] <= truth <= each.interval[1] for each in found if each.interval is not None
    )


def better_scores(trials: int, random: Generator) -> Iterator[dict]:
    """Following and keeping: the model is better by a true mean difference."""
    for effect in EFFECTS:
        for count in PROMPTS:
            found = comparisons(partial(_better, effect), count, trials, random)
            yield {
                "difference (standard deviations)": effect,
                "prompts": count,
                "better": rate(each.verdict == "better" for each in found),
                "interval holds": coverage(found, effect),
            }


def _better(effect: float, random: Generator, count: int) -> tuple[ndarray, ndarray]:
    base = random.normal(50, 15, count)
    return base + random.normal(effect, 1, count), base


def unrelated(trials: int, random: Generator) -> Iterator[dict]:
    """Following: scores are far higher, of pictures that have nothing to do with their prompts."""
    for count in PROMPTS:
        told = []
        for _ in fewer(trials, count):
            common, base = sphere(random, 1), random.normal(20, 5, count)
            made, texts = (unit(common + sphere(random, count)) for _ in range(2))
            higher = scores("m", base + random.normal(20, 5, count), made, texts)
            told.append(compare(higher, scores("b", base)).verdict == "better")
        yield {"prompts": count, "better": rate(told)}


def several(trials: int, random: Generator) -> Iterator[dict]:
    """Following: contenders that are all as good as the base that they share."""
    for count in PROMPTS[:2]:
        told = []
        for _ in fewer(trials // 2, count):
            base, *models = equals(CONTENDERS + 1, count, random)
            told.append([against(e, base, claims=CONTENDERS).following.verdict for e in models])
        yield {
            "contenders": CONTENDERS,
            "prompts": count,
            "any called better": rate("better" in words for words in told),
            "any claim": rate("better" in words or "worse" in words for words in told),
        }


def best(trials: int, random: Generator) -> Iterator[dict]:
    """Following: of a base and checkpoints as good as it the best, told by the other half."""
    for count in (32, 64, 256):
        told = []
        for _ in fewer(trials, count):
            base, *models = equals(CHECKPOINTS + 1, count, random)
            chosen = best_of([base, *models])
            other = compare(*(each.following.half(1) for each in (chosen, base)))
            told.append(other.verdict == "better")
        yield {"checkpoints": CHECKPOINTS, "prompts": count, "best called better": rate(told)}


def equals(number: int, count: int, random: Generator) -> list[Result]:
    """Models that are equally good at the same prompts."""
    rows = random.normal(50, 15, count) + random.normal(0, 10, (number, count))
    return [Result(scores(str(i), row)) for i, row in enumerate(rows)]


def style(angles: tuple[float, float], count: int, training: int, random: Generator) -> str:
    """What is said of a model and its base that draw as the training pictures are, moved by these
    angles: one picture of each prompt, whose kind both draw."""
    real, kinds, numbers = source(random), kinds_of(random, count), np.arange(count)
    reference = real.draw(random, kinds_of(random, training))
    ours, theirs = (replace(real, angle=angle).draw(random, kinds) for angle in angles)
    told = {name: difference(name, ours, theirs, numbers, reference) for name in KERNELS}
    alike = repeats(ours, numbers, reference)
    return AgainstBase(None, None, Comparison(()), distances=told, repeats=alike).nearness


def equal_styles(trials: int, random: Generator) -> Iterator[dict]:
    """Style: both sides draw from one source, that of the training pictures or a farther one."""
    for angle in (0.0, FAR):
        for training in (16, TRAINING):
            for count in PROMPTS:
                told = [
                    style((angle, angle), count, training, random) for _ in fewer(trials, count)
                ]
                yield {
                    "both from training (radians)": angle,
                    "training pictures": training,
                    "prompts": count,
                    "nearer": rate(word == "better" for word in told),
                    "farther": rate(word == "worse" for word in told),
                }


def nearer_styles(trials: int, random: Generator) -> Iterator[dict]:
    """Style: the model draws as its training pictures are, the base does not; then exchanged."""
    for angle in SHIFTS:
        for count in PROMPTS:
            told, back = (
                [style(angles, count, TRAINING, random) for _ in fewer(trials, count)]
                for angles in ((0.0, angle), (angle, 0.0))
            )
            yield {
                "apart (radians)": angle,
                "prompts": count,
                "nearer": rate(word == "better" for word in told),
                "farther, exchanged": rate(word == "worse" for word in back),
            }


def collapses(trials: int, random: Generator) -> Iterator[dict]:
    """Whether pictures are called nearly the same: of an honest model, and of few for all."""
    for training in (8, 16, 64, TRAINING):
        yield {
            "pictures": "as many as prompts",
            "training pictures": training,
            **alike(None, training, trials, random),
        }
    for few in (1, 2, 4, 8, 16):
        yield {
            "pictures": f"{few}, again and again",
            "training pictures": TRAINING,
            **alike(few, TRAINING, trials, random),
        }


def alike(few: int | None, training: int, trials: int, random: Generator) -> dict:
    """How often of each number of prompts."""
    return {
        f"all alike, of {count}": rate(
            said_to_repeat(few, count, training, random) for _ in range(trials)
        )
        for count in PROMPTS
    }


def said_to_repeat(few: int | None, count: int, training: int, random: Generator) -> bool:
    made, reference = collapsed(few, count, training, random)
    return repeats(made, np.arange(count), reference)


def collapsed(
    few: int | None, count: int, training: int, random: Generator
) -> tuple[ndarray, ndarray]:
    """Features of `count` pictures, nearly the same `few` again and again or each its own, and of
    training pictures of the same source."""
    real = source(random)
    made = real.draw(random, kinds_of(random, few or count))
    if few:
        made = unit(made[random.integers(0, few, count)] + NEARLY * sphere(random, count))
    return made, real.draw(random, kinds_of(random, training))


def varied(trials: int, random: Generator) -> Iterator[dict]:
    """Whether pictures are called less varied (Vendi score): of an honest model, and of few for
    all. A fifth of the trials: each compares 200 draws."""
    for training in (64, TRAINING):
        yield {
            "pictures": "as many as prompts",
            "training pictures": training,
            **less_varied(None, training, trials // 5, random),
        }
    for few in (4, 16, 32):
        yield {
            "pictures": f"{few}, again and again",
            "training pictures": TRAINING,
            **less_varied(few, TRAINING, trials // 5, random),
        }


def less_varied(few: int | None, training: int, trials: int, random: Generator) -> dict:
    """How often of each number of prompts."""
    found = {}
    for count in PROMPTS:
        several = (variety(*collapsed(few, count, training, random)) for _ in range(max(1, trials)))
        found[f"less varied, of {count}"] = rate(each is not None and each.is_less
                                                 for each in several)  # fmt: skip
    return found


@cache
def decided(tally: Tally) -> str | None:
    """What the page's interval says at this tally: the model "wins", "loses", or nothing yet."""
    _, low, high = preference_rate(tally)
    if low > 0.5:
        return "wins"
    return "loses" if high < 0.5 else None


def vote(share: float, random: Generator) -> tuple[str | None, int]:
    """Votes until one can tell, looking after each: what is told, and after how many."""
    votes, wins, lefts = Votes(), *(random.random((2, MAX_VOTES)) < ((share,), (0.5,)))
    for number, (win, left) in enumerate(zip(wins.tolist(), lefts.tolist(), strict=True), 1):
        votes.cast(
            VotePair("", number, "left" if left else "right"), "left" if win == left else "right"
        )
        if told := decided(votes.tally):
            return told, number
    return None, MAX_VOTES


def blind(trials: int, random: Generator) -> Iterator[dict]:
    """The blind vote, looked at after every vote."""
    for share in VOTERS:
        found = [vote(share, random) for _ in range(trials)]
        yield {
            "votes for the model": f"{share:.0%}",
            "it wins": rate(told == "wins" for told, _ in found),
            "it loses": rate(told == "loses" for told, _ in found),
            "median votes until then": median(number for _, number in found),
        }
