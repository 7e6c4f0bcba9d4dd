"""Scores as tables for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten

from evaluation.judge_report import judged_as_json, judged_measures, judged_summary, likeness_key
from evaluation.memorisation import Memorisation
from evaluation.mmd import Distance
from evaluation.number_format import distance_with_interval, if_known, interval_as_json, number
from evaluation.scores import AgainstBase, Comparison, ModelScores, Result, Share, mean

PROMPT_WIDTH = 70  # characters; longer prompts are shortened in tables, never in JSON
CLOSEST = 20  # pairs of a picture and its nearest training picture that JSON names


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
    # Over the prompts that both have, so that the row's difference is its difference.
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
    """One row per model: the three numbers, and what else was measured."""
    columns = measures(results)
    rows = [
        (result.model, *(cells[i] for cells in columns.values()))
        for i, result in enumerate(results)
    ]
    return "\n".join(_table(("model", *columns), rows, []))


def measures(results: Sequence[Result]) -> dict[str, list[str]]:
    """By what it measures, a text for each model; what none of them has is left out."""
    found = {
        "following": [number(each.following.score) for each in results],
        "keeping": [number(each.keeping.score) if each.keeping else "" for each in results],
        "style": [if_known(each.style) for each in results],
        "KID": [distance_with_interval(each.distances.get("kid")) for each in results],
        "CMMD": [distance_with_interval(each.distances.get("cmmd")) for each in results],
        "FID": [if_known(each.fid) for each in results],
        "copies": [
            f"{each.memorisation.copies} of {len(each.memorisation.nearest)}"
            if each.memorisation else "" for each in results
        ],
        **judged_measures([each.judged for each in results]),
        "colours right": [
            f"{share.hits} of {share.count}" if (share := each.following.binding) else ""
            for each in results
        ],
        "colours seen": [
            f"{share.hits} of {share.count}" if (share := each.following.coloured) else ""
            for each in results
        ],
    }  # fmt: skip
    return {name: texts for name, texts in found.items() if any(texts)}


def as_json(result: Result) -> dict:
    """Everything about one model, ready for `json.dumps`."""
    return {
        "model": result.model,
        "run_id": result.following.run_id,
        "step": result.step,
        "following": _scores(result.following),
        "training_pictures_score": result.ceiling,
        "training_captions_told_apart": result.told_apart,
        "keeping": _scores(result.keeping),
        "style": result.style,
        "distances": {name: interval_as_json(each) for name, each in result.distances.items()},
        "fid": result.fid,
        "memorisation": _memorisation(result.memorisation),
        "binding": _share(result.following.binding),
        "colours_seen": _share(result.following.coloured),
        "judges": judged_as_json(result.judged),
    }


def summary(result: Result, against: AgainstBase | None = None) -> dict:
    """What run.json keeps: the numbers and how they were made, without a row per prompt; `against`
    its base also that one's numbers, and how sure their difference is."""
    beside = {}
    if against:
        beside = {"comparison": against_as_json(against), "base": _numbers(against.base)}
    return _numbers(result) | {"identity": result.following.identity} | beside


def _numbers(result: Result) -> dict:
    """What is known of one model, on how many prompts, and its scorer's scale: the scores of its
    pictures with the captions exchanged, and of training pictures with their own."""
    everything = as_json(result)
    found = {
        name: everything[name]
        for name in (
            "training_pictures_score", "style", "distances", "fid", "binding", "colours_seen",
        )
    }  # fmt: skip
    found |= {"captions_exchanged": result.following.floor, "judges": judged_summary(result.judged)}
    if result.keeping:
        found["keeping"] = {
            "clip_score": result.keeping.score,
            "captions_exchanged": result.keeping.floor,
            "prompts": result.keeping.identity["prompts"],
        }
    if result.memorisation:
        copies = everything["memorisation"]
        found["memorisation"] = {name: copies[name] for name in ("copies", "pictures")}
    return {
        "clip_score": result.following.score,
        "prompts": sum(prompt.score is not None for prompt in result.following.prompts),
        **{name: value for name, value in found.items() if value not in (None, {})},
    }


def against_as_json(against: AgainstBase) -> dict:
    following = {
        "base": against.base.model,
        "base_run_id": against.base.following.run_id,
        **_comparison(against.following),
        "higher_without_following": against.following.is_no_following,
    }
    others = {"keeping": against.keeping, "style": against.style}
    compared = {name: _comparison(each) for name, each in others.items() if each}
    if against.style:  # judged by the distances of sets, which a picture's mean cosine is not
        compared["style"] |= {"verdict": against.nearness, "repeats": against.repeats}
    judges = {
        judge: _differences(distances) | {"verdict": against.nearness_by(distances)}
        for judge, distances in against.judged.items()
    }
    likeness = {likeness_key(name): _comparison(each) for name, each in against.likeness.items()}
    for each in likeness.values():
        del each["verdict"]  # a mean cosine, by which nothing is better
    more = {"judges": judges, "likeness": likeness}
    return (
        following
        | compared
        | _differences(against.distances)
        | {name: value for name, value in more.items() if value}
    )


def _differences(distances: dict[str, Distance]) -> dict:
    return {f"{name}_difference": interval_as_json(each) for name, each in distances.items()}


def _comparison(comparison: Comparison) -> dict:
    return {
        "mean_difference": comparison.mean,
        "interval_95": comparison.interval,
        "win_rate": comparison.win_rate,
        "prompts": len(comparison.known),
        "verdict": comparison.verdict,
    }


def _scores(scores: ModelScores | None) -> dict | None:
    if scores is None:
        return None
    rows = [
        {
            "prompt": prompt.prompt,
            "score": prompt.score,
            "seeds": [each.seed for each in prompt.shown],
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


def _share(share: Share | None) -> dict | None:
    if share is None:
        return None
    return {"right": share.hits, "pictures": share.count, "interval_95": share.interval}


def _memorisation(memory: Memorisation | None) -> dict | None:
    if memory is None:
        return None
    closest = [
        {
            "picture": number,
            "training_picture": memory.nearest[number].number,
            "distance": memory.nearest[number].distance,
            "bits": memory.nearest[number].bits,
            "likeness": memory.nearest[number].likeness,
            "outlines": memory.nearest[number].outlines,
            "copy": memory.nearest[number].copy,
        }
        for number in memory.closest[:CLOSEST]
    ]
    return {
        "copies": memory.copies,
        "pictures": len(memory.nearest),
        "near_distance": memory.near_distance,
        "near_bits": memory.near_bits,
        "near_likeness": memory.near_likeness,
        "near_outlines": memory.near_outlines,
        "by_chance": memory.by_chance,
        "repeated": memory.repeated,
        "closest": closest,
    }


def _table(head: tuple, rows: list[tuple], footer: list[tuple]) -> list[str]:
    cells = [(shorten(name, PROMPT_WIDTH, placeholder=" ..."), *rest) for name, *rest in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, *footer, strict=True)]

    def line(row: tuple) -> str:
        numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        return "   ".join([row[0].ljust(widths[0]), *numbers])

    rule = "-" * len(line(head))
    return [line(head), rule, *map(line, cells), *([rule] if footer else []), *map(line, footer)]


def _mean_over(known: int, asked: int) -> str:
    count = f"{known} prompt" + ("" if known == 1 else "s")
    return f"mean over {count}" + (f" of {asked}" if known < asked else "")


def _making(identity: dict) -> str:
    """How the scores were made; pictures that were there already have no seeds and steps."""
    words = "by {scorer}, prompts: {prompts}, pictures per prompt: {images_per_prompt}"
    if "steps" in identity:
        words += ",\nfrom seed {seed}, {steps} steps, guidance {guidance_scale}, {width} px"
        words += ", {dtype}"
    return words.format(**identity)
