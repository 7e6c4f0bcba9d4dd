"""Files of prompts: one on each line of a .txt file, or a .jsonl file with a JSON object a line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.bounded_json import JSONFault, loads
from core.errors import UserError
from core.paths import TEXT_BYTES, fault_of, read_text
from core.printable import is_blank

MAX_ROWS = 100_000
MAX_PICTURES = 200_000  # that the rows of a file may ask for
SUFFIXES = (".txt", ".jsonl")
NAMES = ("text", "prompt")  # under which a JSON object has the words; data sets say "text"


@dataclass(frozen=True)
class PromptLine:
    """A line that is not blank."""

    path: Path
    number: int  # of the line, counted from 1
    line: str

    def values(self) -> dict:
        """What it says, words under one of NAMES. Raises UserError where there are none."""
        if self.path.suffix.lower() == ".txt":
            return {"prompt": self.line.strip()}
        try:
            values = loads(self.line)
        except JSONFault as error:
            raise UserError(f"{self} {error}. Mend or delete the row.") from error
        if isinstance(values, dict):
            texts = [values[name] for name in NAMES if name in values]
            if texts and all(isinstance(text, str) and not is_blank(text) for text in texts):
                return values
        raise UserError(f'{self}: no words under "prompt" or "text". Add some or delete it.')

    def prompt(self) -> str:
        """Its words alone, whatever else it says. Raises UserError where there are none."""
        values = self.values()
        return next(values[name] for name in NAMES if name in values).strip()

    def __str__(self) -> str:
        return f"{self.path}, row {self.number}"


def is_prompt_file(source: str) -> bool:
    """Whether it is called like one."""
    return Path(source).suffix.lower() in SUFFIXES


def read_rows(source: str) -> list[PromptLine]:
    """All rows. Raises UserError for a file that cannot be read, holds none, or too many."""
    path = Path(source)
    if not is_prompt_file(source):
        raise UserError(f"'{path}' is no file of prompts. Give a {' or '.join(SUFFIXES)} file.")
    try:
        text = read_text(path, TEXT_BYTES, "utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} {fault_of(error)}. Give a file of prompts.") from error
    except UnicodeError as error:
        raise UserError(f"{path} is not UTF-8 text. Save it as UTF-8.") from error
    # Within JSON other line breaks than "\n" are characters like any others.
    lines = text.splitlines() if path.suffix.lower() == ".txt" else text.split("\n")
    rows = [PromptLine(path, n, line) for n, line in enumerate(lines, 1) if not is_blank(line)]
    if not rows:
        raise UserError(f"{path} holds no prompt. Write one a line.")
    if len(rows) > MAX_ROWS:
        raise UserError(f"{path} has {len(rows):,} rows. Split it into files of {MAX_ROWS:,}.")
    return rows
