"""The findings of a check as JSON lines, for other programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from core.bounded_json import loads
from core.files import replaced
from data.index import RowIndex

# Each row, with the first one that has the same file.
ROWS = """
    SELECT rows.row, rows.place, rows.picture, rows.split, rows.width, rows.height, rows.text,
        earlier.picture
    FROM rows
    LEFT JOIN (SELECT content, MIN(row) AS row FROM rows WHERE content IS NOT NULL
        GROUP BY content) AS first ON first.content = rows.content AND first.row < rows.row
    LEFT JOIN rows AS earlier ON earlier.row = first.row ORDER BY rows.row
"""
FINDINGS = """
    SELECT sentence, fault, about, rows.picture FROM findings
    LEFT JOIN rows ON rows.row = findings.other WHERE findings.row = ? ORDER BY findings.rowid
"""
OTHERS = "SELECT place, sentence, fault FROM findings WHERE row IS NULL ORDER BY rowid"


def write_findings(path: Path, index: RowIndex) -> None:
    """A line for each row, then one for each finding about the data as a whole.

    Raises `UserError` if it cannot be written; then nothing is left behind.
    """
    next(index.ask("CREATE INDEX findings_by_row ON findings (row)"), None)
    with replaced(path) as staged, open(staged, "w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines(index))


def lines(index: RowIndex) -> Iterator[dict]:
    for row, place, picture, split, width, height, text, same in index.ask(ROWS):
        yield {
            "row": row, "where": place, "file": picture, "split": split, "width": width,
            "height": height, "caption": loads(text) if text else None, "same_as": same,
            "findings": [
                {"sentence": sentence, "fault": bool(fault), "about": about, "like": like}
                for sentence, fault, about, like in index.ask(FINDINGS, row)
            ],
        }  # fmt: skip
    for place, sentence, fault in index.ask(OTHERS):
        finding = {"sentence": sentence, "fault": bool(fault), "about": "", "like": None}
        yield {"row": None, "where": place, "findings": [finding]}
