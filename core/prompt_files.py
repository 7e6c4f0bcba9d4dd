"""Prompt files: a .txt file with a prompt per line, or .jsonl with an object per line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.bounded_json import JSONFault, loads
from core.errors import UserError
from core.paths import TEXT_BYTES, fault_of, read_text
from core.printable import is_blank

MAX_ROWS = 100_000
MAX_PICTURES = 200_000  # that a file may request
SUFFIXES = (".txt", ".jsonl")
NAMES = ("text", "prompt")  # keys of the prompt in JSON; data sets use "text"


@dataclass(frozen=True)
class PromptLine:
    """A non-blank line of a prompt file."""

    path: Path
    number: int  # of the line, counted from 1
    line: str

    def values(self) -> dict:
        """Its fields, with the prompt under one of NAMES. Raises UserError if there is none."""
        if self.path.suffix.lower() == ".txt":
            return {"prompt": self.line.strip()}
        try:
            values = loads(self.line)
        except JSONFault as error:
            raise UserError(f"{self} {error}. Fix or delete the row.") from error
        if isinstance(values, dict):
            texts = [values[name] for name in NAMES if name in values]
            if texts and all(isinstance(text, str) and not is_blank(text) for text in texts):
                return values
        raise UserError(f'{self}: no words under "prompt" or "text". Add some or delete it.')

    def prompt(self) -> str:
        """The prompt, without the other fields. Raises UserError if there is none."""
        values = self.values()
        return next(values[name] for name in NAMES if name in values).strip()

    def __str__(self) -> str:
        return f"{self.path}, row {self.number}"


def is_prompt_file(source: str) -> bool:
    """Whether a name has the suffix of a prompt file."""
    return Path(source).suffix.lower() in SUFFIXES


def read_rows(source: str) -> list[PromptLine]:
    """All rows. Raises UserError for a file that is unreadable, empty or too long."""
    path = Path(source)
    if not is_prompt_file(source):
        raise UserError(f"'{path}' is no file of prompts. Give a {' or '.join(SUFFIXES)} file.")
    try:
        text = read_text(path, TEXT_BYTES, "utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} {fault_of(error)}. Give a file of prompts.") from error
    except UnicodeError as error:
        raise UserError(f"{path} is not UTF-8 text. Save it as UTF-8.") from error
    # In JSON, line separators other than "\n" are ordinary characters.
    lines = text.splitlines() if path.suffix.lower() == ".txt" else text.split("\n")
    rows = [PromptLine(path, n, line) for n, line in enumerate(lines, 1) if not is_blank(line)]
    if not rows:
        raise UserError(f"{path} holds no prompt. Write one a line.")
    if len(rows) > MAX_ROWS:
        raise UserError(f"{path} has {len(rows):,} rows. Split it into files of {MAX_ROWS:,}.")
    return rows
