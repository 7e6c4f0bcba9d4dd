"""Tables in JSON: JSON lines, or a catalogue in one document; read an entry at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from core.bounded_json import BrokenJSON, JSONFault, Scanner, loads
from core.errors import UserError
from core.printable import quoted
from data.limits import ROW_CHARACTERS
from data.rows import TableEntry
from data.text_files import lines, opened_text, undecodable


def json_lines(path: Path, encoding: str = "utf-8") -> Iterator[TableEntry]:
    """Entries of a JSON lines file."""
    for number, line in enumerate(lines(path, encoding), 1):
        if not line.strip():
            continue
        where = f"{path.name}, row {number}"
        if fault := undecodable(line, encoding):
            yield TableEntry(where, {}, fault)
            continue
        try:
            value = loads(line.strip(), ROW_CHARACTERS)
        except JSONFault as error:
            yield _broken_line(where, number, line, str(error))
            continue
        if isinstance(value, dict):
            yield TableEntry(where, value)
        else:
            yield TableEntry(where, {}, f"line {number} is not a JSON object")


def _broken_line(where: str, number: int, line: str, reason: str) -> TableEntry:
    """The entry of an invalid line; a last line without a line end was truncated."""
    reason = reason.replace("is no JSON", "is not a JSON object").replace("line 1 ", "")
    breaks_off = len(line) <= ROW_CHARACTERS and line[-1] not in "\r\n"
    advice = "the file breaks off here: fetch it whole, or delete the line"
    advice = advice if breaks_off else "fix or delete the line"
    return TableEntry(where, {}, f"line {number} {reason}; {advice}", breaks_off)


def catalogue(path: Path, encoding: str = "utf-8") -> Iterator[TableEntry]:
    """Entries of a JSON file: a list of objects, or an object of objects, texts or lists of them.

    In an object, as {"dress-7": {...}}, the key is the default of the picture's name. The last
    entry of a truncated file says so. Raises `UserError` for other documents.
    """
    with opened_text(path, encoding) as file:
        document = Scanner(file)
        try:
            if document.peek() == "[":
                for number, _ in enumerate(document.elements(), 1):
                    yield _entry(f"{path.name}, entry {number}", document, encoding)
            elif document.peek() == "{":
                for name in document.names():
                    yield from _named(path.name, name, document, encoding)
            else:
                raise UserError(f"{path} is neither a list nor an object of entries in JSON.")
            document.end()
        except BrokenJSON as error:
            fault = f"{error}; fix the file, what follows cannot be read"
            yield TableEntry(path.name, {}, fault, breaks_off=True)


def _named(file: str, name: str, document: Scanner, encoding: str) -> Iterator[TableEntry]:
    """The value of a key: an entry, a caption, or a list of entries."""
    if document.peek() == "[":
        for number, _ in enumerate(document.elements(), 1):
            yield _entry(f"{file}, {quoted(name)} entry {number}", document, encoding)
        return
    is_caption = document.peek() == '"'
    entry = _entry(f"{file}, entry {quoted(name)}", document, encoding, is_caption)
    yield TableEntry(entry.where, {"image_id": name, **entry.fields}, entry.fault)


def _entry(where: str, document: Scanner, encoding: str, is_caption: bool = False) -> TableEntry:
    """Read the next value of the document: an object of fields, or a caption."""
    try:
        value = document.value()
    except BrokenJSON:
        raise
    except JSONFault as error:
        return TableEntry(where, {}, f"{error}; fix it or delete the entry")
    if fault := undecodable(document.raw, encoding):
        return TableEntry(where, {}, fault)
    if is_caption:
        return TableEntry(where, {"text": value})
    if isinstance(value, dict):
        return TableEntry(where, value)
    return TableEntry(where, {}, f"is {json.dumps(value)[:40]} and not an object of fields")
