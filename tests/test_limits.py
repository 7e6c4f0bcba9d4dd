"""The bounds that the documentation states are those that the code keeps."""

import ast
import re
from pathlib import Path

import pytest

from core import bounded_json, paths, printable, prompt_files
from core.paths import size
from data import archives, captions, csv_tables, json_tables, limits, sidecars, unpack
from webapp import limits as app

DOCS = Path(__file__).parent.parent / "docs"
DOCUMENT = (DOCS / "limits.md").read_text(encoding="utf-8")


def documented(heading: str) -> list[tuple[str, ...]]:
    """The rows of the table below a heading."""
    below = rf"^## {heading}\n(.*?)(?=^## |\Z)"
    section = re.search(below, DOCUMENT, re.DOTALL | re.MULTILINE)[1]
    lines = re.findall(r"^\| (.*) \|$", section, re.MULTILINE)[2:]
    return [tuple(line.split(" | ")) for line in lines]


@pytest.mark.parametrize(("heading", "table"), [("Data", limits.DATA), ("The app", app.APP)])
def test_the_document_states_every_bound_of_the_table(heading, table):
    def most(limit) -> str:
        return size(limit.maximum) if limit.unit == "bytes" else f"{limit.maximum:,} {limit.unit}"

    assert documented(heading) == [(limit.what, most(limit), limit.beyond) for limit in table]


def test_the_table_of_the_app_holds_every_bound_that_is_kept():
    tree = ast.parse(Path(app.__file__).read_text(encoding="utf-8"))
    constants = {
        target.id
        for node in tree.body if isinstance(node, ast.Assign)
        for target in node.targets if target.id not in ("APP", "PUBLIC")
    }  # fmt: skip
    (table,) = (
        node.value for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "APP"
    )  # fmt: skip
    named = {node.id for node in ast.walk(table) if isinstance(node, ast.Name)}
    assert constants and constants <= named
    assert len({limit.what for limit in app.APP}) == len(app.APP)


def test_the_documents_state_what_a_drawing_of_a_public_page_may_ask_for():
    stated = "{num_images} pictures, {steps} steps and {side} pixels a side"
    text = " ".join((DOCS / "production.md").read_text(encoding="utf-8").split())
    assert stated.format_map(vars(app.PUBLIC)) in text


def test_the_table_holds_every_bound_that_is_kept():
    kept = {limits.PICTURE_BYTES, limits.PICTURE_PIXELS, limits.COLUMNS, paths.TEXT_BYTES,
            archives.FOLDERS_DEEP, unpack.LEFT_FREE_BYTES, paths.CARD_BYTES,
            json_tables.ROW_CHARACTERS,
            captions.CAPTION_CHARACTERS, sidecars.CAPTION_BYTES, captions.CAPTIONS,
            csv_tables.CELL_CHARACTERS, bounded_json.DIGITS, bounded_json.DEPTH,
            bounded_json.FILE_BYTES, printable.LINE_CHARACTERS, prompt_files.MAX_ROWS,
            prompt_files.MAX_PICTURES, printable.QUOTE_CHARACTERS}  # fmt: skip
    assert {limit.maximum for limit in limits.DATA} == kept


def test_no_whole_number_within_the_bounds_is_too_large_for_a_float():
    assert float("9" * bounded_json.DIGITS) < float("inf")
