"""Did it get better? Models + prompts -> scores, a verdict and a report.

    python metrics.py
    python metrics.py --model my-model --base bundled/base-model --report my-model/scores.html

Three questions: does the model follow prompts of what it was tuned for, does it keep what its base
knew, has it the style of its training pictures; and did it memorise them? Every picture's seed is a
function of its place, so the same command gives the same scores, and models are compared on the
same noise.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import exit_with_sentence
from evaluation.distributed import Processes
from evaluation.evaluate import evaluate_models, evaluate_pictures
from evaluation.options import checked_request, parse_options
from evaluation.outputs import print_results, save_results, verdict_of


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_options(arguments)
    request = checked_request(options)
    processes = Processes()
    evaluate = evaluate_pictures if options.pictures else evaluate_models
    evaluation = evaluate(options, request, processes)
    if processes.is_main:
        verdict = verdict_of(evaluation, options)
        print_results(evaluation, verdict)
        save_results(options, evaluation, verdict)


if __name__ == "__main__":
    exit_with_sentence(main)
