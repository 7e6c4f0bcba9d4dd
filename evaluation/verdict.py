"""The verdict: what the numbers say, in plain words, and no more than they say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from core.formatting import amount
from core.statistics import CANNOT_TELL, MIN_DIFFERENT, MIN_PROMPTS, prompts_to_tell
from evaluation.comparison import AgainstBase, Comparison, compare
from evaluation.judges import CSD, DINOV2
from evaluation.metric import MIN_SAMPLES, percent, signed
from evaluation.metrics_table import METRICS
from evaluation.mmd import Distance
from evaluation.prompts import TRAINING_CAPTIONS
from evaluation.results import Result, comparable
from evaluation.scores import ModelScores

MIN_ACCURACY = 0.75  # of a scorer that knows the training pictures; chance: 0.5
MAX_PROMPTS = 10_000  # that anybody would draw
NO_BEST = "None is called the best: of none it is sure that it follows its prompts."
# From which share of what the base knew on it is called what.
LOST = ((2 / 3, "most of"), (1 / 3, "much of"), (0.1, "some of"), (-math.inf, "a little of"))


def sentences(
    results: Sequence[Result], against: Sequence[AgainstBase], best: Result | None
) -> list[str]:
    """The verdict on each model, the most important sentences first."""
    verdict = [sentence for each in against for sentence in _against(each)]
    bases = [each.base for each in against]
    for result in results:
        if not any(result is base for base in bases):
            verdict += _alone(result)
        verdict += _left_out(result)
    verdict += _unsuitable_scorer(results[-1])
    if len(results) > 2 and (best or comparable(results)):
        verdict.append(_best(best, results) if best else NO_BEST)
    return verdict


def _best(best: Result, results: Sequence[Result]) -> str:
    """Chosen on one half of the prompts and judged on the other, free of selection bias."""
    first = best.following.half(0)
    chosen = f"The best is {best.model}: on {amount(len(first.prompts), 'prompt')} it follows best."
    first_model = results[0]
    if best is first_model:
        return chosen
    other = compare(best.following.half(1), first_model.following.half(1))
    words = {"better": "better than", "worse": "worse than"}
    how = words.get(other.verdict, "in a way that they cannot tell from")
    return f"{chosen} On the others it follows {how} {first_model.model} ({numbers(other)})."


def _with_numbers(comparison: Comparison, words: dict[str, str], unknown: str) -> str:
    said = words.get(comparison.verdict, unknown)
    return f"{said} ({numbers(comparison)}).{_needed(comparison)}"


def _needed(comparison: Comparison) -> str:
    """That no verdict is not equality, and how many prompts would give one."""
    if comparison.is_no_following:
        return (
            " Its scores are higher, but its pictures fit other prompts as well as their own: that "
            "is no following."
        )
    if comparison.verdict != CANNOT_TELL or not any(comparison.known):
        return ""
    needed, size = prompts_to_tell(comparison.known), ""
    if needed is not None:
        count = f"about {needed:,}" if needed <= MAX_PROMPTS else f"more than {MAX_PROMPTS:,}"
        size = f" A difference of this size takes {count} prompts."
    return f" That is no sign that both are equal.{size}"


def numbers(comparison: Comparison) -> str:
    """A difference with its interval."""
    count = amount(len(comparison.known), "prompt")
    different = sum(difference != 0 for difference in comparison.known)
    if comparison.interval is None and len(comparison.known) >= MIN_PROMPTS:
        return (
            f"{count} of which {different} differ cannot give an interval, it takes {MIN_DIFFERENT}"
        )
    if comparison.interval is None:
        return f"{count} cannot give an interval, it takes {MIN_PROMPTS}"
    if not any(comparison.known):
        return f"the same score for each of {count}"
    low, high = comparison.claimed or comparison.interval
    mean, wins = comparison.mean or 0.0, comparison.win_rate or 0.0
    return (
        f"{signed(mean)}, {100 * comparison.confidence:.3g} % interval "
        f"{signed(low)} to {signed(high)}, higher for {percent(wins)} of {count}"
    )


def _against(each: AgainstBase) -> Iterator[str]:
    ours, base = each.model.model, each.base.model
    prompts = _prompts_of(each.model)
    words = {
        "better": f"{ours} follows {prompts} better than {base}",
        "worse": f"{ours} follows {prompts} worse than {base}",
    }
    unknown = f"These prompts cannot tell {ours} from {base}"
    yield _with_numbers(each.following, words, unknown)
    if each.keeping and each.model.keeping and each.base.keeping:
        words = {
            "better": "It got better at what its base knew, too",
            "worse": f"It has forgotten {_lost(each.model.keeping, each.base.keeping)} what its "
            "base knew",
        }
        unknown = "Whether it forgot what its base knew, these prompts cannot tell"
        kept = _kept(each.model.keeping, each.base.keeping)
        yield _with_numbers(each.keeping, words, unknown) + kept
    if each.style:
        yield _style(each)
        yield from _by_judges(each)
    for name, likeness in each.likeness.items():
        yield f"Its likeness to its subject by {name}, against {base}: {numbers(likeness)}."


def _prompts_of(result: Result) -> str:
    """Whose prompts these are."""
    name = result.following.identity.get("prompts")
    if name == TRAINING_CAPTIONS:
        return "the captions that it was trained on"
    if name in ("original", "general"):
        return f"the fixed prompts '{name}', which are not of what it was tuned for,"
    return "its prompts"


def _lost(ours: ModelScores, base: ModelScores) -> str:
    """How much is forgotten, where nothing is kept when pictures fit no better than with the
    captions exchanged."""
    if base.score is None or ours.score is None or ours.floor is None or ours.floor >= base.score:
        return "some of"
    share = (base.score - ours.score) / (base.score - ours.floor)
    return next(words for least, words in LOST if share >= least)


def _kept(ours: ModelScores, base: ModelScores) -> str:
    """What is left of what the base knew, on a scale with a floor."""
    if base.score is None or ours.score is None or ours.floor is None:
        return ""
    return (
        f" {base.score:.2f} became {ours.score:.2f}; with the captions exchanged its "
        f"pictures score {ours.floor:.2f}."
    )


def _style(each: AgainstBase) -> str:
    """By set distances: noise, white paper and one picture for all can have a high mean cosine."""
    if each.repeats and each.nearness != "worse":
        return (
            "Its pictures of different prompts are more alike than its training pictures are: of "
            "its style that says nothing."
        )
    words = {
        "better": "Its pictures are nearer to the style of its training pictures",
        "worse": "Its pictures are farther from the style of its training pictures",
    }
    unknown = "Whether its pictures are nearer in style to its training pictures, these cannot tell"
    return f"{words.get(each.nearness, unknown)} ({_distances(each)})."


BY_JUDGE = {
    CSD: {
        "better": "By CSD its pictures are nearer to the style of its training pictures",
        "worse": "By CSD its pictures are farther from the style of its training pictures",
        CANNOT_TELL: "By CSD these cannot tell whether its pictures are nearer in style",
    },
    DINOV2: {
        "better": "By DINOv2 its pictures, as a set, are nearer to its training pictures",
        "worse": "By DINOv2 its pictures, as a set, are farther from its training pictures",
        CANNOT_TELL: "By DINOv2 these cannot tell whether its pictures are nearer as a set",
    },
}


def _by_judges(each: AgainstBase) -> Iterator[str]:
    """By set distances, too; nothing where pictures repeat each other, which `_style` says."""
    for judge, distances in each.judged.items():
        nearness = each.nearness_by(distances)
        if nearness == "worse" or not each.repeats:
            intervals = _with_intervals(distances, each.following.confidence)
            yield f"{BY_JUDGE[judge][nearness]} ({intervals})."


def _distances(each: AgainstBase) -> str:
    if not each.distances:
        return f"a distance needs {MIN_SAMPLES} prompts and as many training pictures"
    return _with_intervals(each.distances, each.following.confidence)


def _with_intervals(distances: Mapping[str, Distance], confidence: float) -> str:
    said = []
    for name, distance in distances.items():
        low, high = distance.at(confidence).interval
        said.append(f"{name.upper()} {signed(distance.value)}, {signed(low)} to {signed(high)}")
    return f"{', '.join(said)}, {100 * confidence:.3g} % intervals"


def _alone(result: Result) -> Iterator[str]:
    if result.following.score is None:
        yield f"No picture of {result.model} could be scored."
    elif result.following.floor is not None:
        yield _scale(result)
    for metric in METRICS:
        value = result.get(metric)
        if metric.sentence and value is not None and (said := metric.sentence(result, value)):
            yield said


def _unsuitable_scorer(result: Result) -> Iterator[str]:
    """A warning if the scorer does not know what the training pictures show."""
    accuracy = result.caption_accuracy
    if accuracy is not None and accuracy < MIN_ACCURACY:
        yield (
            "Of the training pictures themselves, this scorer tells their own caption from another "
            f"one's in {percent(accuracy)} of cases (guessing: 50 %): what it says of "
            "following means little for such pictures. Choose another --scorer."
        )


def _scale(result: Result) -> str:
    """The model's score between its floor and its ceiling."""
    scores = result.following
    said = (
        f"{result.model} scores {scores.score:.2f}; with the captions exchanged its pictures "
        f"score {scores.floor:.2f}"
    )
    if result.ceiling is None:
        return f"{said}."
    return f"{said}, and training pictures with their own {result.ceiling:.2f}."


def _left_out(result: Result) -> Iterator[str]:
    """How many pictures were drawn and not scored, by reason."""
    kinds = Counter(
        kind
        for scores in (result.following, result.keeping, result.recalling) if scores
        for prompt in scores.prompts for kind in prompt.problems if kind
    )  # fmt: skip
    if kinds:
        reasons = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        left = amount(kinds.total(), "picture")
        yield f"{result.model}: {left} left out and not scored ({reasons})."
