"""What the numbers say, in plain words, and no more than they say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from core.formatting import amount
from core.statistics import CANNOT_TELL, MIN_DIFFERENT, MIN_PROMPTS, prompts_to_tell
from evaluation.judge_options import CSD, DINOV2
from evaluation.memorisation import Memorisation
from evaluation.mmd import MIN_ITEMS, Distance
from evaluation.number_format import signed
from evaluation.prompts import TRAINING_CAPTIONS
from evaluation.scores import AgainstBase, Comparison, Result, comparable, compare, half_of
from evaluation.sscd import LIMIT, Replication

UNLIKELY = 0.001  # so seldom chance alone makes as many copies
KNOWS = 0.75  # of real pictures, that a scorer tells by their captions; guessing: 0.5
MAX_PROMPTS = 10_000  # that anybody would draw to tell a difference
NO_BEST = "None is called the best: of none it is sure that it follows its prompts."


def sentences(
    results: Sequence[Result], against: Sequence[AgainstBase], best: Result | None
) -> list[str]:
    """Sentences on each model, what matters most first."""
    told = [sentence for each in against for sentence in _against(each)]
    bases = [each.base for each in against]
    for result in results:
        if not any(result is base for base in bases):
            told += _alone(result)
        told += _left_out(result)
    told += _blind(results[-1])
    if len(results) > 2 and (best or comparable(results)):
        told.append(_best(best, results) if best else NO_BEST)
    return told


def _best(best: Result, results: Sequence[Result]) -> str:
    """Chosen on one half of the prompts and told by the other, which does not flatter it."""
    first = half_of(best.following, 0)
    chosen = f"The best is {best.model}: on {amount(len(first.prompts), 'prompt')} it follows best."
    rival = results[0]
    if best is rival:
        return chosen
    other = compare(half_of(best.following, 1), half_of(rival.following, 1))
    words = {"better": "better than", "worse": "worse than"}
    told = words.get(other.verdict, "in a way that they cannot tell from")
    return f"{chosen} On the others it follows {told} {rival.model} ({numbers(other)})."


def _judged(comparison: Comparison, words: dict[str, str], unknown: str) -> str:
    told = words.get(comparison.verdict, unknown)
    return f"{told} ({numbers(comparison)}).{_needed(comparison)}"


def _needed(comparison: Comparison) -> str:
    """What not being able to tell is not, and what would."""
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
    low, high = comparison.claimed
    return (
        f"{signed(comparison.mean)}, {100 * comparison.confidence:.3g} % interval "
        f"{signed(low)} to {signed(high)}, higher for {_percent(comparison.win_rate)} of {count}"
    )


def _against(each: AgainstBase) -> Iterator[str]:
    ours, base = each.model.model, each.base.model
    prompts = _prompts_of(each.model)
    words = {
        "better": f"{ours} follows {prompts} better than {base}",
        "worse": f"{ours} follows {prompts} worse than {base}",
    }
    unknown = f"These prompts cannot tell {ours} from {base}"
    yield _judged(each.following, words, unknown)
    if each.keeping:
        words = {
            "better": "It got better at what its base knew, too",
            "worse": "It has forgotten some of what its base knew",
        }
        unknown = "Whether it forgot what its base knew, these prompts cannot tell"
        yield _judged(each.keeping, words, unknown) + _kept(each)
    if each.style:
        yield _style(each)
        yield from _by_judges(each)
    for name, likeness in each.likeness.items():
        yield f"Its likeness to its subject by {name}, against {base}: {numbers(likeness)}."


def _prompts_of(result: Result) -> str:
    """What it was asked: prompts of what it was tuned for, or others."""
    name = result.following.identity.get("prompts")
    if name == TRAINING_CAPTIONS:
        return "the captions that it was trained on"
    if name in ("original", "general"):
        return f"the fixed prompts '{name}', which are not of what it was tuned for,"
    return "its prompts"


def _kept(each: AgainstBase) -> str:
    """What is left of what the base knew, on a scale that has an end."""
    base, ours = each.base.keeping, each.model.keeping
    if None in (base.score, ours.score, ours.floor):
        return ""
    return (
        f" {base.score:.2f} became {ours.score:.2f}; with the captions exchanged its "
        f"pictures score {ours.floor:.2f}."
    )


def _style(each: AgainstBase) -> str:
    """Of sets of pictures: noise, white paper and one picture for all have a mean cosine, too."""
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
    """Of sets of pictures, too; nothing where these say nothing, which was told already."""
    for judge, distances in each.judged.items():
        nearness = each.nearness_by(distances)
        if nearness == "worse" or not each.repeats:
            yield f"{BY_JUDGE[judge][nearness]} ({_told(distances, each.following.confidence)})."


def _distances(each: AgainstBase) -> str:
    if not each.distances:
        return f"a distance needs {MIN_ITEMS} prompts and as many training pictures"
    return _told(each.distances, each.following.confidence)


def _told(distances: Mapping[str, Distance], confidence: float) -> str:
    told = []
    for name, distance in distances.items():
        low, high = distance.at(confidence).interval
        told.append(f"{name.upper()} {signed(distance.value)}, {signed(low)} to {signed(high)}")
    return f"{', '.join(told)}, {100 * confidence:.3g} % intervals"


def _alone(result: Result) -> Iterator[str]:
    name, memory, binding = result.model, result.memorisation, result.following.binding
    if result.following.score is None:
        yield f"No picture of {name} could be scored."
    elif result.following.floor is not None:
        yield _scale(result)
    if memory:
        yield _memorised(result, memory)
    if found := result.judged.replication:
        yield _replicated(result, found)
    for measure in result.judged.likeness:
        yield _likeness(result, measure)
    if binding:
        low, high = binding.interval
        yield (
            f"By its scorer, {name} gives two colours to the right things in {binding.hits} of "
            f"{amount(binding.count, 'picture')} that show both ({_percent(low)} to "
            f"{_percent(high)}; guessing: 50 %)."
        )


def _blind(result: Result) -> Iterator[str]:
    """That the scorer does not know what these pictures show, where it does not."""
    if result.told_apart is not None and result.told_apart < KNOWS:
        yield (
            "Of the training pictures themselves, this scorer tells their own caption from another "
            f"one's in {_percent(result.told_apart)} of cases (guessing: 50 %): what it says of "
            "following means little for such pictures. Choose another --scorer."
        )


def _scale(result: Result) -> str:
    """Between which scores the model's stands."""
    scores = result.following
    told = (
        f"{result.model} scores {scores.score:.2f}; with the captions exchanged its pictures "
        f"score {scores.floor:.2f}"
    )
    if result.ceiling is None:
        return f"{told}."
    return f"{told}, and training pictures with their own {result.ceiling:.2f}."


def _memorised(result: Result, memory: Memorisation) -> str:
    count = f"{amount(len(memory.nearest), 'picture')} of {result.model}"
    if result.recalling:
        prompts = amount(len(result.recalling.shown), "picture")
        count += f" ({prompts} of training captions, where copies are likeliest)"
    exact = f" {memory.exact} of them are training pictures themselves." if memory.exact else ""
    if not memory.can_be_told:
        return (
            f"Whether {count} are copies cannot be told: {memory.repeated:.0%} of the training "
            f"pictures repeat another one, as a new picture may.{exact} Look at the closest pairs."
        )
    if not memory.copies:
        return f"None of {count} looks like a copy of a training picture."
    copied = f"{memory.copies} of {count} look like copies of training pictures"
    if memory.by_chance < UNLIKELY:
        advice = " Train for fewer steps, or with more pictures."
        return f"{copied}: it has memorised.{exact}{advice}"
    return f"{copied}, which is no more than chance. Look at the closest pairs."


def _likeness(result: Result, measure: str) -> str:
    found = result.judged.likeness[measure]
    told = f"By {measure} pictures of {result.model} are as like its subject as {found.value:.2f}"
    if found.interval:
        told += f" (95 % interval {found.interval[0]:.2f} to {found.interval[1]:.2f})"
    real = (
        "" if found.real is None else f", its own pictures are so to each other as {found.real:.2f}"
    )
    return f"{told}; the same picture is as 100{real}."


def _replicated(result: Result, found: Replication) -> str:
    """Beside what was found by laying pictures on each other; no verdict, since training pictures
    of one kind are above the limit with each other, too."""
    return (
        f"By SSCD {found.above} of {amount(len(found.nearest), 'picture')} of {result.model} are "
        f"more than {LIMIT} like a training picture, the published limit for a copy; of "
        f"{amount(len(found.among), 'training picture')} {found.above_among} are so with another "
        "one."
    )


def _left_out(result: Result) -> Iterator[str]:
    """What was drawn and not scored, by the reason."""
    kinds = Counter(
        kind
        for scores in (result.following, result.keeping, result.recalling) if scores
        for prompt in scores.prompts for kind in prompt.problems if kind
    )  # fmt: skip
    if kinds:
        reasons = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        left = amount(kinds.total(), "picture")
        yield f"{result.model}: {left} left out and not scored ({reasons})."


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")
