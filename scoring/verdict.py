"""What the numbers say, in plain words, and no more than they say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from scoring.memorisation import SHARE
from scoring.scores import Against, Comparison, Result
from scoring.statistics import MIN_PROMPTS, wilson_interval


def sentences(
    results: Sequence[Result], against: Sequence[Against], best: Result | None
) -> list[str]:
    """Sentences on each model, what matters most first."""
    told = [sentence for each in against for sentence in _against(each)]
    bases = [each.base for each in against]
    for result in results:
        if not any(result is base for base in bases):
            told += _alone(result)
        told += _left_out(result)
    if best and len(results) > 2:
        told.append(
            f"The best is {best.model}: of the models that follow their prompts best, as far as "
            "these prompts can tell, it keeps most of what the base knew."
        )
    return told


def numbers(comparison: Comparison) -> str:
    """A difference with its interval."""
    count = _count(len(comparison.known), "prompt")
    if comparison.interval is None:
        return f"{count} cannot give an interval, it takes {MIN_PROMPTS}"
    low, high = comparison.interval
    return (
        f"{signed(comparison.mean)}, 95 % interval {signed(low)} to {signed(high)}, higher for "
        f"{_percent(comparison.win_rate)} of {count}"
    )


def signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # + 0.0: no "-0.00"


def _against(each: Against) -> Iterator[str]:
    ours, base = each.model.model, each.base.model
    words = {
        "better": f"{ours} follows its prompts better than {base}",
        "worse": f"{ours} follows its prompts worse than {base}",
    }
    unknown = f"These prompts cannot tell {ours} from {base}"
    yield f"{words.get(each.following.verdict, unknown)} ({numbers(each.following)})."
    if each.keeping:
        words = {
            "better": "It got better at what its base knew, too",
            "worse": "It has forgotten some of what its base knew",
        }
        unknown = "Whether it forgot what its base knew, these prompts cannot tell"
        yield f"{words.get(each.keeping.verdict, unknown)} ({numbers(each.keeping)})."
    if each.style:
        words = {
            "better": "Its pictures are nearer to the style of its training pictures",
            "worse": "Its pictures are farther from the style of its training pictures",
        }
        unknown = "Whether its pictures are nearer in style to its training pictures, these cannot "
        unknown += "tell"
        yield f"{words.get(each.style.verdict, unknown)} ({numbers(each.style)})."


def _alone(result: Result) -> Iterator[str]:
    name, memory, binding = result.model, result.memorisation, result.following.binding
    if memory:
        count = len(memory.nearest)
        copied = f"{memory.copies} of {_count(count, 'picture')} of {name}"
        if wilson_interval(memory.copies, count)[0] > SHARE:
            yield (
                f"{copied} are copies of training pictures, or nearly: it has memorised. Train "
                "for fewer steps, or with more pictures."
            )
        else:
            yield f"{copied} look like copies of training pictures: no sign of memorising."
    if binding:
        low, high = binding.interval
        yield (
            f"{name} gives two colours to the right things in {binding.hits} of "
            f"{_count(binding.count, 'picture')} ({_percent(low)} to {_percent(high)}; guessing: "
            "50 %)."
        )


def _left_out(result: Result) -> Iterator[str]:
    """What was drawn and not scored, by the reason."""
    kinds = Counter(
        kind
        for scores in (result.following, result.keeping) if scores
        for prompt in scores.prompts for kind in prompt.problems if kind
    )  # fmt: skip
    if kinds:
        reasons = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        left = _count(kinds.total(), "picture")
        yield f"{result.model}: {left} left out and not scored ({reasons})."


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
