"""A prepared set of pictures: what a run learns from, as prepare_dataset.py wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from core.bounded_json import JSONFault, loads
from core.errors import UserError
from core.paths import is_file, read_text
from webapp.runs.folder import RunsFolder, check_name

METADATA = "metadata.jsonl"
MAX_METADATA_BYTES = 64 * 2**20
MAX_ROWS = 100_000
EXAMPLES = 3  # captions that are suggested as prompts


@dataclass(frozen=True)
class PreparedSet:
    """A data-set folder and what is in it."""

    name: str
    folder: Path  # for --train_data_dir: pictures to learn from and, beside them, held-out ones
    learned: Path  # where the pictures to learn from lie
    count: int  # of these
    held_out: int
    captions: tuple[str, ...]  # some of them

    @property
    def stamp(self) -> str:
        """What changes when the set does."""
        try:
            found = (self.learned / METADATA).stat()
        except OSError:
            return ""
        return f"{found.st_mtime_ns} {found.st_size}"


def prepared_set(runs: RunsFolder, name: str) -> PreparedSet:
    """Raises UserError where there is no such set, or it is not prepared."""
    check_name(name)
    folder = runs.pictures / name / "ready"
    split = is_file(folder / "train" / METADATA)
    learned = folder / "train" if split else folder
    if not is_file(learned / METADATA):
        raise UserError(f"The pictures {name!r} are not prepared. Go back to them.")
    captions = [*_captions(learned)]
    if not captions:
        raise UserError(f"There is no picture in {name!r} to learn from. Go back, and add some.")
    held_out = sum(1 for _ in _captions(folder / "test"))
    spread = captions[:: max(1, len(captions) // EXAMPLES)][:EXAMPLES]
    return PreparedSet(name, folder, learned, len(captions), held_out, tuple(spread))


def _captions(folder: Path) -> Iterator[str]:
    try:
        lines = read_text(folder / METADATA, MAX_METADATA_BYTES, errors="replace").split("\n")
    except OSError:
        return
    for line in islice(lines, MAX_ROWS):
        try:
            row = loads(line) if line.strip() else None
        except JSONFault:
            continue
        if isinstance(row, dict):
            text = row.get("text")
            first = text[0] if isinstance(text, list) and text else text
            yield first if isinstance(first, str) else ""
