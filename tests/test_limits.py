"""The bounds that the documentation states are those that the code keeps."""

import re
from pathlib import Path

from core import bounded_json, inputs, printable
from core.inputs import size
from preparing import archives, cells, check, limits, rows, sidecars

DOCUMENT = (Path(__file__).parent.parent / "docs" / "limits.md").read_text(encoding="utf-8")


def documented() -> list[tuple[str, ...]]:
    """The rows of the table below the heading "Data"."""
    section = re.search(r"^## Data\n(.*?)(?=^## |\Z)", DOCUMENT, re.DOTALL | re.MULTILINE)[1]
    lines = re.findall(r"^\| (.*) \|$", section, re.MULTILINE)[2:]
    return [tuple(line.split(" | ")) for line in lines]


def test_the_document_states_every_bound_of_the_table():
    def most(limit) -> str:
        return size(limit.most) if limit.unit == "bytes" else f"{limit.most:,} {limit.unit}"

    assert documented() == [(limit.what, most(limit), limit.beyond) for limit in limits.DATA]


def test_the_table_holds_every_bound_that_is_kept():
    kept = {limits.PICTURE_BYTES, limits.PICTURE_PIXELS, limits.COLUMNS, inputs.TEXT_BYTES,
            archives.FOLDERS_DEEP, inputs.CARD_BYTES, rows.ROW_CHARACTERS, check.CAPTION_CHARACTERS,
            sidecars.CAPTION_BYTES, check.CAPTIONS,
            cells.CELL_CHARACTERS, bounded_json.DIGITS, bounded_json.DEPTH,
            bounded_json.FILE_BYTES, printable.LINE_CHARACTERS,
            printable.QUOTE_CHARACTERS}  # fmt: skip
    assert {limit.most for limit in limits.DATA} == kept


def test_no_whole_number_within_the_bounds_is_too_large_for_a_float():
    assert float("9" * bounded_json.DIGITS) < float("inf")
