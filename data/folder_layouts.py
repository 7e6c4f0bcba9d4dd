"""Layouts of a data folder: one pass over its files, then the layout that is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from core.errors import UserError
from core.file_names import ARCHIVE_SUFFIXES
from core.paths import is_file
from data import kohya
from data.index import Finding
from data.metadata_files import TABLES, names_pictures, open_table
from data.parquet import holds_pictures, open_parquet
from data.sidecars import ImageDetector, Sidecars, open_pairs
from data.source import ReadOptions, Source
from data.webdataset import is_shard, open_shards

JUDGED = 20  # JSON sidecars that are tested for captions
COMPARED = 100  # pictures that are searched for caption files of several kinds
REMEMBERED = 1_000  # tables; kohya folders
TRIED = 20  # files of one kind that are tested for being data
NAMED = 5  # files in a message


@dataclass
class FolderContents:
    """Counts of pictures and captions in a folder, and other files that may be data."""

    sidecars: Sidecars
    pictures: int = 0
    captioned: int = 0  # pictures with a caption file
    in_json: int = 0  # of these, with a JSON file
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
        elif path.name.lower().endswith(ARCHIVE_SUFFIXES):
            self.archives.append(path)
        elif suffix not in TABLES or (suffix == ".json" and pictures.beside(path)):
            return
        elif len(self.tables) < REMEMBERED:
            self.tables.append(path)


def survey(files: Iterable[Path], options: ReadOptions) -> FolderContents:
    """Classify every file. JSON sidecars are ignored if the first ones hold no caption."""
    contents = FolderContents(Sidecars.chosen_by(options))
    in_json = replace(contents.sidecars, suffixes=(".json",))
    pictures, tested, in_use = ImageDetector(contents.sidecars), 0, bool(options.caption_key)
    for path in files:
        if path not in pictures:
            contents.add_other(path, pictures)
            continue
        contents.add_picture(path, contents.sidecars.of(path))
        if not in_use and tested < JUDGED and (note := in_json.of(path)):
            in_use, tested = in_json.read(note)[1] is None, tested + 1
    return contents if in_use else _without_json(contents)


def _without_json(contents: FolderContents) -> FolderContents:
    suffixes = tuple(each for each in contents.sidecars.suffixes if each != ".json")
    return replace(
        contents,
        sidecars=replace(contents.sidecars, suffixes=suffixes),
        captioned=contents.captioned - contents.in_json,
        kinds=contents.kinds - {".json"},
    )


class DetectedLayout(NamedTuple):
    """A layout that a folder has, and how to open it."""

    what: str  # the beginning of a message that says what is read
    files: Sequence[Path]  # that are read, unless it is all pictures
    opened: Callable[[], Source]


def _captioned(
    folder: Path, contents: FolderContents, options: ReadOptions
) -> DetectedLayout | None:
    """Pairs: a caption file beside most pictures."""
    mostly = 0 < contents.pictures <= 2 * contents.captioned
    return _partly_captioned(folder, contents, options) if mostly else None


def _partly_captioned(
    folder: Path, contents: FolderContents, options: ReadOptions
) -> DetectedLayout | None:
    if not contents.captioned and not contents.repeated:
        return None
    return DetectedLayout(
        "the caption files beside the pictures are", (), partial(open_pairs, folder, contents)
    )


def _parquet(folder: Path, contents: FolderContents, options: ReadOptions) -> DetectedLayout | None:
    """Parquet files with pictures, or the names of their files."""
    fits = any(holds_pictures(path, options) for path in contents.parquet[:TRIED])
    return _any_parquet(folder, contents, options) if fits else None


def _any_parquet(
    folder: Path, contents: FolderContents, options: ReadOptions
) -> DetectedLayout | None:
    """Parquet files without the usual columns: opening them lists those there are."""
    if not contents.parquet:
        return None
    opened = partial(open_parquet, str(folder), folder, contents.parquet, options)
    return DetectedLayout("the Parquet files are", contents.parquet, opened)


def _shards(folder: Path, contents: FolderContents, options: ReadOptions) -> DetectedLayout | None:
    """WebDataset's tar archives."""
    paths = [path for path in contents.archives if path.suffix.lower() == ".tar"]
    if not any(is_shard(path) for path in paths[:1]):
        return None
    return DetectedLayout(
        "the tar archives are",
        paths,
        partial(open_shards, str(folder), folder, paths, options),
    )


def _table(folder: Path, contents: FolderContents, options: ReadOptions) -> DetectedLayout | None:
    """A table that names existing pictures."""
    paths = [] if options.strict else contents.tables[:TRIED]
    return _one_of(folder, [path for path in paths if names_pictures(path, options)], options)


def _any_table(
    folder: Path, contents: FolderContents, options: ReadOptions
) -> DetectedLayout | None:
    return _one_of(folder, contents.tables, options)


def _one_of(folder: Path, paths: list[Path], options: ReadOptions) -> DetectedLayout | None:
    """A single table. Raises `UserError` where there are several."""
    if not paths or options.strict:  # training takes metadata files only, as diffusers' script does
        return None
    if paths[1:]:
        names = ", ".join(str(path) for path in paths[:NAMED])
        raise UserError(f"{folder} holds several tables: {names}; give one of them as SOURCE.")
    return DetectedLayout(
        f"{paths[0].name} is", paths, partial(open_table, paths[0], options, str(folder))
    )


# The first match is read; the weakest evidence comes last.
LAYOUTS = (
    _captioned, _parquet, _shards, _table, _partly_captioned, _any_parquet, _any_table,
)  # fmt: skip


def detected_layout(
    folder: Path, contents: FolderContents, options: ReadOptions
) -> DetectedLayout | None:
    """The first of LAYOUTS that the folder has."""
    return next(filter(None, (layout(folder, contents, options) for layout in LAYOUTS)), None)


def not_read(
    folder: Path, contents: FolderContents, chosen: DetectedLayout, options: ReadOptions
) -> list[Finding]:
    """Warnings about other data in a folder, and how to read them instead."""
    read = set(chosen.files)
    others = [
        path.relative_to(folder).as_posix()
        for path in (*contents.tables, *contents.parquet, *contents.archives) if path not in read
    ]  # fmt: skip
    sentences = []
    if others:
        more = f" and {len(others) - NAMED} more" if others[NAMED:] else ""
        way = f"{options.advice.format('it')} if it is what you mean"
        sentences.append(f"not {', '.join(others[:NAMED])}{more}: {way}")
    if contents.captioned and chosen.files:
        sentences.append(
            "not the caption files beside the pictures: move the former away to read these"
        )
    return [Finding(str(folder), f"{chosen.what} read, {each}", fault=False) for each in sentences]
