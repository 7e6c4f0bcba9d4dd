"""Verdict and results: to the terminal, --output, --report and the model's run.json."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from core.terminal import say
from evaluation.evaluate import Evaluation
from evaluation.html_report import write_page_of
from evaluation.options import rewritable_run
from evaluation.report import (
    against_as_json,
    as_json,
    comparison_table,
    results_table,
    score_table,
    summary,
    write_json,
)
from evaluation.verdict import sentences


def verdict_of(evaluation: Evaluation, options: argparse.Namespace) -> list[str]:
    """The verdict in sentences, and what would make it say more."""
    verdict = sentences(evaluation.results, evaluation.comparisons, evaluation.best)
    if evaluation.reference is None and options.data != "none":
        verdict.append(
            "Without its training pictures nothing is known of style, distances and memorisation; "
            "--data FOLDER names them."
        )
    return verdict


def print_results(evaluation: Evaluation, verdict: Sequence[str]) -> None:
    """Scores per prompt of the model, a row of metrics per model, and the verdict."""
    model = evaluation.results[-1]
    if evaluation.comparisons:
        last = evaluation.comparisons[-1]
        table = comparison_table(model.following, last.base.following, last.following)
    else:
        table = score_table(model.following)
    say(table, end="\n\n")
    say(results_table(evaluation.results), end="\n\n")
    say("\n".join(verdict))


def save_results(
    options: argparse.Namespace, evaluation: Evaluation, verdict: Sequence[str]
) -> None:
    """Write --output, --report and, with --write_run, the model's run.json."""
    if options.output:
        write_json(Path(options.output), _content(evaluation, verdict))
    if options.report:
        write_page_of(
            Path(options.report), evaluation.results, evaluation.comparisons,
            evaluation.reference, verdict, evaluation.best,
        )  # fmt: skip
    if options.write_run:
        _add_to_run(options.model[0], evaluation, verdict)


def _content(evaluation: Evaluation, verdict: Sequence[str]) -> dict:
    return {
        "models": [as_json(result) for result in evaluation.results],
        "comparisons": [
            {"model": each.model.model} | against_as_json(each) for each in evaluation.comparisons
        ],
        "best": evaluation.best.model if evaluation.best else None,
        "verdict": list(verdict),
    }


def _add_to_run(model: str, evaluation: Evaluation, verdict: Sequence[str]) -> None:
    """Add the scores to run.json, in the place of those on the same prompts."""
    run, result = rewritable_run(model), evaluation.results[-1]
    comparison = evaluation.comparisons[-1] if evaluation.comparisons else None
    entry = summary(result, comparison) | {"verdict": list(verdict)}
    scores = run.get("scores", {}) | {result.following.identity["prompts"]: entry}
    write_json(Path(model) / "run.json", run | {"scores": scores})
