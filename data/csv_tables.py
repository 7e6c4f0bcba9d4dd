"""Tables in CSV, read a row at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from core.errors import UserError
from data.limits import CELL_CHARACTERS, COLUMNS, ROW_CHARACTERS
from data.rows import TableEntry
from data.text_files import lines, undecodable

SPARE = "\0spare"  # key of cells beyond the last column of the header
QUOTE_OPEN = "nor what follows; is a double quote left open?"


def csv_rows(path: Path, encoding: str = "utf-8") -> Iterator[TableEntry]:
    """Rows of a CSV file with a header; separated by commas, semicolons or tabs.

    Raises `UserError` for too many columns.
    """
    header = next(lines(path, encoding), "")
    mark = max(",;\t", key=header.count)
    if header.count(mark) >= COLUMNS:
        raise UserError(f"{path} has more than {COLUMNS:,} columns; leave those out that nobody "
                        "needs here.")  # fmt: skip
    csv.field_size_limit(CELL_CHARACTERS)
    feed = _Feed(lines(path, encoding))
    rows = csv.DictReader(feed, delimiter=mark, restkey=SPARE)
    for number in count(1):
        where = f"{path.name}, row {number}"
        feed.begin()
        try:
            fields = next(rows, None)
        except csv.Error as error:  # row boundaries are unknown from here on
            yield TableEntry(where, {}, f"cannot be read ({error}), {QUOTE_OPEN}", breaks_off=True)
            return
        if fields is None:
            return
        fault = undecodable("".join(str(value) for value in fields.values()), encoding)
        if spare := fields.pop(SPARE, None):
            fault = fault or (
                f"has {len(spare)} more cells than the header; put a text that holds {mark!r} "
                "in double quotes"
            )
        cut = feed.cut(None in fields.values())
        yield TableEntry(where, fields, cut or fault, breaks_off=bool(cut))


class _Feed:
    """Iterator of lines for csv.reader, which consumes several where a cell has line breaks."""

    def __init__(self, lines: Iterator[str]):
        self._lines, self._last, self._size, self._ended = lines, "", 0, False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines, "")
        self._ended = not line
        if not line:
            raise StopIteration
        self._last, self._size = line, self._size + len(line)
        if self._size > ROW_CHARACTERS:
            raise csv.Error(f"row larger than {ROW_CHARACTERS:,} characters")
        return line

    def begin(self) -> None:
        """Mark the start of a row."""
        self._size = 0

    def cut(self, lacks_cells: bool) -> str | None:
        """A message if the file was truncated within the row just parsed."""
        if self._ended:
            return f"cannot be read (the file ends within double quotes), {QUOTE_OPEN}"
        if lacks_cells and self._last[-1] not in "\r\n":
            return "has too few cells: the file breaks off here; fetch it whole, or delete the row"
        return None
