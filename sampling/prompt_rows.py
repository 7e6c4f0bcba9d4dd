"""Rows of a file of prompts as requests: each with what it says itself, else what all have in
common."""

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
MAX_TOLD = 20  # sentences of a kind


@dataclass(frozen=True)
class PromptRow:
    """One picture of a row."""

    row: PromptLine
    name: str  # of its file: those of a folder sort as the rows do
    request: Request  # of one picture


def wanted_of(rows: Sequence[PromptLine], common: dict) -> list[PromptRow]:
    """The pictures of all rows, in order. `common`: values of a Request for rows without their own.

    A row without a seed has the common one; where it says what an earlier row says, the seeds go on
    after those of that row. Every row that cannot be drawn is named on stderr. Raises UserError.
    """
    Request(**{"prompt": "each in its turn"} | common)  # else every row would be at fault
    found, faults, taken = [], [], Counter()
    for row in rows:
        try:
            found += _pictures(row, _request(row, common, taken))
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
    if len(found) > MAX_PICTURES:
        raise UserError(
            f"{rows[0].path} asks for {len(found):,} pictures. Split it: at most "
            f"{MAX_PICTURES:,} are drawn into a folder."
        )
    return found


def complain_of(sentences: Sequence[str]) -> None:
    """Each on a line of stderr, the first of them if they are many."""
    for sentence in sentences[:MAX_TOLD]:
        complain(sentence)
    if (more := len(sentences) - MAX_TOLD) > 0:
        complain(f"... and {more:,} more.")


def _request(row: PromptLine, common: dict, taken: Counter) -> Request:
    """`taken`: how many pictures of the same were asked for by rows without a seed."""
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
    said = json.dumps({n: v for n, v in values.items() if n != "num_images"}, sort_keys=True)
    taken[said] += request.num_images
    return replace(request, seed=(request.seed + taken[said] - request.num_images) % SEEDS)


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
