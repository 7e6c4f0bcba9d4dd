"""Results as tables for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from core.files import replaced
from evaluation.comparison import AgainstBase, Comparison
from evaluation.likeness import likeness_key
from evaluation.metric import number
from evaluation.metrics_table import METRICS
from evaluation.mmd import Distance
from evaluation.results import Result
from evaluation.scores import ModelScores, mean
from sampling.request import UNUSUAL

PROMPT_WIDTH = 70  # characters; longer prompts are shortened in tables, never in JSON
NESTED = "distances", "judges"  # in JSON always there, empty if nothing is known


def score_table(scores: ModelScores) -> str:
    """One row per prompt, then the mean."""
    rows = [(prompt.prompt, number(prompt.score)) for prompt in scores.prompts]
    known = sum(prompt.score is not None for prompt in scores.prompts)
    footer = [(_mean_over(known, len(rows)), number(scores.score))]
    lines = _table(("CLIP score of " + scores.model, "score"), rows, footer)
    return "\n".join([*lines, _making(scores.identity)])


def comparison_table(model: ModelScores, base: ModelScores, comparison: Comparison) -> str:
    """One row per prompt with both scores and their difference."""
    rows = [
        (ours.prompt, number(theirs.score), number(ours.score), number(difference, "+"))
        for ours, theirs, difference in zip(
            model.prompts, base.prompts, comparison.differences, strict=True
        )
    ]
    # Over the prompts that both have, so that the means differ by the mean difference.
    both = [i for i, difference in enumerate(comparison.differences) if difference is not None]
    footer = [
        (
            _mean_over(len(both), len(rows)),
            number(mean([base.prompts[i].score for i in both])),
            number(mean([model.prompts[i].score for i in both])),
            number(comparison.mean, "+"),
        )
    ]
    title = f"CLIP score of {model.model} against {base.model}"
    lines = _table((title, "base", "model", "difference"), rows, footer)
    return "\n".join([*lines, _making(model.identity)])


def results_table(results: Sequence[Result]) -> str:
    """One row per model: its scores, and the metrics that fit a terminal."""
    unprinted = {metric.column for metric in METRICS if not metric.printed}
    columns = {name: each for name, each in measures(results).items() if name not in unprinted}
    rows = [
        (result.model, *(cells[i] for cells in columns.values()))
        for i, result in enumerate(results)
    ]
    return "\n".join(_table(("model", *columns), rows, []))


def measures(results: Sequence[Result]) -> dict[str, list[str]]:
    """By name of the measure, a text per model; without what is known of none."""
    found = {
        "following": [number(each.following.score) for each in results],
        "keeping": [number(each.keeping.score) if each.keeping else "" for each in results],
    }
    for metric in METRICS:
        if metric.column:
            values = [result.get(metric) for result in results]
            found[metric.column] = ["" if value is None else metric.text(value) for value in values]
    return {name: texts for name, texts in found.items() if any(texts)}


def as_json(result: Result) -> dict:
    """Everything about one model, for `json.dumps`."""
    return {
        "model": result.model,
        "run_id": result.following.run_id,
        "step": result.step,
        "following": _scores(result.following),
        "training_pictures_score": result.ceiling,
        "training_captions_told_apart": result.caption_accuracy,
        "keeping": _scores(result.keeping) if result.keeping else None,
        **_metrics_as_json(result),
    }


def _metrics_as_json(result: Result, summarised: bool = False) -> dict[str, Any]:
    """Values of the metrics, at the place that their keys name; None for what is not known."""
    found: dict[str, Any] = {name: {} for name in NESTED}
    for metric in METRICS:
        *folders, name = metric.key.split(".")
        value = result.get(metric)
        if value is None:
            if not folders:
                found[name] = None
            continue
        place = found
        for folder in folders:
            place = place.setdefault(folder, {})
        short = summarised and metric.summary
        place[name] = (short or metric.to_json)(value)
    return found


def summary(result: Result, comparison: AgainstBase | None = None) -> dict:
    """What run.json keeps: the numbers and how they were made, without a row per prompt; with a
    comparison also the base's numbers and the differences."""
    beside = {}
    if comparison:
        beside = {"comparison": against_as_json(comparison), "base": _numbers(comparison.base)}
    return _numbers(result) | {"identity": result.following.identity} | beside


def _numbers(result: Result) -> dict:
    """What is known of one model: number of prompts, metrics, and the scale of its score, which are
    the scores with exchanged captions and those of training pictures."""
    found = _metrics_as_json(result, summarised=True) | {
        "training_pictures_score": result.ceiling,
        "captions_exchanged": result.following.floor,
        "table": _table_of_page(result),
    }
    if result.keeping:
        found["keeping"] = {
            "clip_score": result.keeping.score,
            "captions_exchanged": result.keeping.floor,
            "prompts": result.keeping.identity["prompts"],
        }
    return {
        "clip_score": result.following.score,
        "prompts": sum(prompt.score is not None for prompt in result.following.prompts),
        **{name: value for name, value in found.items() if value not in (None, {})},
    }


def _table_of_page(result: Result) -> dict[str, dict[str, str]]:
    """By metric, its name and value as text: the page shows those for which it has no own row."""
    return {
        metric.key: {"name": metric.column, "text": metric.text(value)}
        for metric in METRICS
        if metric.column and (value := result.get(metric)) is not None
    }


def against_as_json(against: AgainstBase) -> dict:
    """The comparison with the base, for `json.dumps`."""
    following = {
        "base": against.base.model,
        "base_run_id": against.base.following.run_id,
        **_comparison(against.following),
        "higher_without_following": against.following.is_no_following,
    }
    others = {"keeping": against.keeping, "style": against.style}
    compared = {name: _comparison(each) for name, each in others.items() if each}
    if against.style:  # the verdict is that of set distances, not of the mean cosine
        compared["style"] |= {"verdict": against.nearness, "repeats": against.repeats}
    judges = {
        judge: _differences(distances) | {"verdict": against.nearness_by(distances)}
        for judge, distances in against.judged.items()
    }
    likeness = {likeness_key(name): _comparison(each) for name, each in against.likeness.items()}
    for each in likeness.values():
        del each["verdict"]  # a mean cosine decides nothing
    more = {"judges": judges, "likeness": likeness}
    return (
        following
        | compared
        | _differences(against.distances)
        | {name: value for name, value in more.items() if value}
    )


def _differences(distances: Mapping[str, Distance]) -> dict[str, Any]:
    return {f"{name}_difference": each.json for name, each in distances.items()}


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "mean_difference": comparison.mean,
        "interval_95": comparison.interval,
        "win_rate": comparison.win_rate,
        "prompts": len(comparison.known),
        "verdict": comparison.verdict,
    }


def _scores(scores: ModelScores) -> dict[str, Any]:
    rows = [
        {
            "prompt": prompt.prompt,
            "score": prompt.score,
            "seeds": [each.seed for each in prompt.images],
            "pictures": list(prompt.pictures),
            "problems": list(prompt.problems),
        }
        for prompt in scores.prompts
    ]
    left_out = {
        kind: sum(prompt.problems.count(kind) for prompt in scores.prompts)
        for kind in sorted({kind for prompt in scores.prompts for kind in prompt.problems if kind})
    }
    return {
        "clip_score": scores.score,
        "captions_exchanged": scores.floor,
        "left_out_pictures": scores.left_out,
        "left_out": left_out,
        "identity": scores.identity,
        "prompts": rows,
    }


def write_json(path: Path, content: dict) -> None:
    """Write JSON atomically: run.json must survive an interruption."""
    text = json.dumps(content, indent=2, allow_nan=False)
    with replaced(path) as staged:
        staged.write_text(text + "\n")


def _table(head: tuple, rows: list[tuple], footer: list[tuple]) -> list[str]:
    cells = [(shorten(name, PROMPT_WIDTH, placeholder=" ..."), *rest) for name, *rest in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, *footer, strict=True)]

    def line(row: tuple) -> str:
        numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        return "   ".join([row[0].ljust(widths[0]), *numbers])

    rule = "-" * len(line(head))
    return [line(head), rule, *map(line, cells), *([rule] if footer else []), *map(line, footer)]


def _mean_over(known: int, count: int) -> str:
    prompts = f"{known} prompt" + ("" if known == 1 else "s")
    return f"mean over {prompts}" + (f" of {count}" if known < count else "")


def _making(identity: dict) -> str:
    """How the scores were made; pictures that existed already have no seeds and steps."""
    words = "by {scorer}, prompts: {prompts}, pictures per prompt: {images_per_prompt}"
    if "steps" in identity:
        words += ",\nfrom seed {seed}, {steps} steps, guidance {guidance_scale}, {width} px"
        words += ", {dtype}"
    words += "".join(f", {name} {{{name}}}" for name in UNUSUAL if name in identity)
    return words.format(**identity)
