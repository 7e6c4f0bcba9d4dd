"""Scores as a table for people and as JSON for programs."""

from dataclasses import asdict
from textwrap import shorten

from scoring.scores import Comparison, ModelScores, mean
from scoring.statistics import MIN_PROMPTS

PROMPT_WIDTH = 70  # characters; longer prompts are shortened in tables, never in JSON


def score_table(scores: ModelScores) -> str:
    """One row per prompt, then the mean."""
    rows = [(prompt.prompt, _number(prompt.score)) for prompt in scores.prompts]
    known = sum(prompt.score is not None for prompt in scores.prompts)
    footer = [(_mean_over(known, len(rows)), _number(scores.score))]
    lines = _table(("CLIP score of " + scores.model, "score"), rows, footer)
    return "\n".join([*lines, *_notes(scores), _making(scores.identity)])


def comparison_table(model: ModelScores, base: ModelScores, comparison: Comparison) -> str:
    """One row per prompt with both scores and their difference, then the verdict."""
    rows = [
        (ours.prompt, _number(theirs.score), _number(ours.score), _number(difference, "+"))
        for ours, theirs, difference in zip(
            model.prompts, base.prompts, comparison.differences, strict=True
        )
    ]
    # Over the prompts that both have, so that the row's difference is its difference.
    both = [i for i, difference in enumerate(comparison.differences) if difference is not None]
    footer = [
        (
            _mean_over(len(both), len(rows)),
            _number(mean([base.prompts[i].score for i in both])),
            _number(mean([model.prompts[i].score for i in both])),
            _number(comparison.mean, "+"),
        )
    ]
    title = f"CLIP score of {model.model} against {base.model}"
    lines = _table((title, "base", "model", "difference"), rows, footer)
    notes = [*_notes(model), *_notes(base), _making(model.identity)]
    return "\n".join(
        [*lines, *notes, "", _statistics(comparison), _verdict(model, base, comparison)]
    )


def as_json(scores: ModelScores) -> dict:
    """Everything about one model's scores, ready for `json.dumps`."""
    return {
        "model": scores.model,
        "run_id": scores.run_id,
        "clip_score": scores.score,
        "left_out_pictures": scores.left_out,
        "identity": scores.identity,
        "prompts": [asdict(prompt) | {"score": prompt.score} for prompt in scores.prompts],
    }


def summary(scores: ModelScores) -> dict:
    """What run.json keeps: the mean and how it was made, without a row per prompt."""
    known = sum(prompt.score is not None for prompt in scores.prompts)
    return {"clip_score": scores.score, "prompts": known, "identity": scores.identity}


def comparison_as_json(comparison: Comparison, base: ModelScores) -> dict:
    return {
        "base": base.model,
        "base_run_id": base.run_id,
        "mean_difference": comparison.mean,
        "interval_95": comparison.interval,
        "win_rate": comparison.win_rate,
        "prompts": len(comparison.known),
        "verdict": comparison.verdict,
    }


def _table(head: tuple, rows: list[tuple], footer: list[tuple]) -> list[str]:
    cells = [(shorten(name, PROMPT_WIDTH, placeholder=" ..."), *rest) for name, *rest in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, *footer, strict=True)]

    def line(row: tuple) -> str:
        numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        return "   ".join([row[0].ljust(widths[0]), *numbers])

    rule = "-" * len(line(head))
    return [line(head), rule, *map(line, cells), rule, *map(line, footer)]


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return "failed"
    return f"{round(value, 2) + 0.0:{sign}.2f}"  # + 0.0: no "-0.00"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _mean_over(known: int, asked: int) -> str:
    return f"mean over {_count(known, 'prompt')}" + (f" of {asked}" if known < asked else "")


def _notes(scores: ModelScores) -> list[str]:
    if not scores.left_out:
        return []
    kinds = sorted({kind for prompt in scores.prompts for kind in prompt.problems if kind})
    return [f"{scores.model}: {_count(scores.left_out, 'picture')} left out ({', '.join(kinds)})"]


def _making(identity: dict) -> str:
    return (
        "by {scorer}, prompts: {prompts}, pictures per prompt: {images_per_prompt},\n"
        "from seed {seed}, {steps} steps, guidance {guidance_scale}, {width} px, {dtype}"
    ).format(**identity)


def _statistics(comparison: Comparison) -> str:
    count = _count(len(comparison.known), "prompt")
    if comparison.interval is None:
        return f"{count} cannot give an interval; it takes {MIN_PROMPTS}."
    low, high = comparison.interval
    return (
        f"mean difference {comparison.mean:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}; "
        f"win rate {comparison.win_rate:.0%} of {count}"
    )


def _verdict(model: ModelScores, base: ModelScores, comparison: Comparison) -> str:
    if comparison.verdict in ("better", "worse"):
        return f"{model.model} is {comparison.verdict} than {base.model}."
    return f"{comparison.verdict.capitalize()} {model.model} from {base.model}."
