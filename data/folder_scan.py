"""What lies in a folder, found in one pass over its files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from core.paths import is_file
from data import kohya
from data.metadata_files import TABLES
from data.sidecars import ImageDetector, Sidecars
from data.source import ReadOptions

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
JUDGED = 20  # JSON files that are looked into, whether they hold captions
COMPARED = 100  # pictures at which is seen whether there are caption files of several kinds
REMEMBERED = 1_000  # files of one kind; folders with repeats


@dataclass
class FolderContents:
    """Pictures, captions beside them, and other files that may be data."""

    sidecars: Sidecars
    pictures: int = 0
    captioned: int = 0  # of the pictures, with a caption file
    in_json: int = 0  # of these, with one in JSON
    kinds: set[str] = field(default_factory=set)  # of caption files beside the first pictures
    repeated: dict[Path, bool] = field(default_factory=dict)  # kohya's folders: all captioned?
    tables: list[Path] = field(default_factory=list)
    parquet: list[Path] = field(default_factory=list)
    archives: list[Path] = field(default_factory=list)

    def add_picture(self, path: Path, note: Path | None) -> None:
        self.pictures += 1
        self.captioned += note is not None
        self.in_json += note is not None and note.suffix.lower() == ".json"
        if self.pictures <= COMPARED:
            self.kinds |= self.sidecars.kinds_of(path)
        if kohya.concept_of(path) and (
            path.parent in self.repeated or len(self.repeated) < REMEMBERED
        ):
            self.repeated[path.parent] = self.repeated.get(path.parent, True) and note is not None

    def add_other(self, path: Path, pictures: ImageDetector) -> None:
        suffix = path.suffix.lower()
        if not is_file(path):
            return
        if suffix == ".parquet":
            self.parquet.append(path)
        elif path.name.lower().endswith(ARCHIVES):
            self.archives.append(path)
        elif suffix not in TABLES or (suffix == ".json" and pictures.beside(path)):
            return
        elif len(self.tables) < REMEMBERED:
            self.tables.append(path)


def survey(files: Iterable[Path], reading: ReadOptions) -> FolderContents:
    """Look at each file once. JSON beside pictures is no caption where the first ones hold none."""
    found = FolderContents(Sidecars.asked_for(reading))
    in_json = replace(found.sidecars, suffixes=(".json",))
    pictures, judged, spoken = ImageDetector(found.sidecars), 0, bool(reading.caption_key)
    for path in files:
        if path not in pictures:
            found.add_other(path, pictures)
            continue
        found.add_picture(path, found.sidecars.of(path))
        if not spoken and judged < JUDGED and (note := in_json.of(path)):
            spoken, judged = in_json.read(note)[1] is None, judged + 1
    return found if spoken else _without_json(found)


def _without_json(found: FolderContents) -> FolderContents:
    suffixes = tuple(each for each in found.sidecars.suffixes if each != ".json")
    return replace(
        found,
        sidecars=replace(found.sidecars, suffixes=suffixes),
        captioned=found.captioned - found.in_json,
        kinds=found.kinds - {".json"},
    )
