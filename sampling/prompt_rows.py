"""Rows of a prompts file as requests: each with its own values, else with the common ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from core.errors import UserError
from core.prompt_files import MAX_PICTURES, PromptLine
from core.terminal import complain
from sampling.image import file_stem
from sampling.request import SEEDS, Request

KEYS = [field.name for field in fields(Request) if field.name != "init_image"]
MAX_SENTENCES = 20  # printed of a kind


@dataclass(frozen=True)
class PromptRow:
    """One picture of a row."""

    row: PromptLine
    name: str  # of its file; file names sort as the rows do
    request: Request  # of one picture


def wanted_of(rows: Sequence[PromptLine], common: dict) -> list[PromptRow]:
    """The pictures of all rows, in order. `common`: values of a Request for rows without their own.

    A row without a seed has the common one; a repeated row continues with the seeds after those of
    its predecessor. Every faulty row is named on stderr. Raises UserError.
    """
    Request(**{"prompt": "of each row"} | common)  # a fault of the options is not one of every row
    wanted: list[PromptRow] = []
    faults: list[str] = []
    seeds_used: Counter[str] = Counter()
    total = 0
    for row in rows:
        try:
            request = _request(row, common, seeds_used)
            total += request.num_images
            if total <= MAX_PICTURES:  # else refused below, and only counted
                wanted += _pictures(row, request)
        except UserError as error:
            faults.append(str(error))
    if len(faults) == 1:
        raise UserError(faults[0])
    if faults:
        complain_of(faults)
        raise UserError(
            f"{len(faults):,} rows of {rows[0].path} cannot be drawn, so nothing was. Mend or "
            "delete them."
        )
    if total > MAX_PICTURES:
        raise UserError(
            f"{rows[0].path} asks for {total:,} pictures. Split it: at most "
            f"{MAX_PICTURES:,} are drawn into a folder."
        )
    return wanted


def complain_of(sentences: Sequence[str]) -> None:
    """Print sentences on stderr, one a line; of many only the first."""
    for sentence in sentences[:MAX_SENTENCES]:
        complain(sentence)
    if (more := len(sentences) - MAX_SENTENCES) > 0:
        complain(f"... and {more:,} more.")


def _request(row: PromptLine, common: dict, seeds_used: Counter[str]) -> Request:
    """`seeds_used`: pictures of the rows without a seed so far, by the values of the row."""
    values = {name: value for name, value in row.values().items() if value is not None}
    if "prompt" not in values:
        values["prompt"] = values.pop("text")
    if unknown := [name for name in values if name not in KEYS]:
        raise UserError(f"{row}: there is no {unknown[0]!r:.40}. The keys are {', '.join(KEYS)}.")
    try:
        request = Request(**common | values)
    except UserError as error:
        raise UserError(f"{row}: {error}") from error
    if "seed" in values:
        return request
    key = json.dumps({n: v for n, v in values.items() if n != "num_images"}, sort_keys=True)
    seed = (request.seed + seeds_used[key]) % SEEDS
    seeds_used[key] += request.num_images
    return replace(request, seed=seed)


def _pictures(row: PromptLine, request: Request) -> list[PromptRow]:
    stem = file_stem(request.prompt)
    numbered = "-{:02}".format if request.num_images > 1 else lambda number: ""
    return [
        PromptRow(
            row,
            f"{row.number:06}{numbered(number)}-{stem}-seed-{single.seed}.png",
            single,
        )
        for number, single in enumerate(request.singles(), start=1)
    ]
