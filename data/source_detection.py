"""Detection of the format of a data set, and opening it as a source of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

from core.errors import UserError
from core.file_names import ARCHIVE_SUFFIXES
from core.paths import fault_of, is_file, is_folder, is_there, opened
from data import hub_datasets
from data.archives import open_archive
from data.folder_layouts import DetectedLayout, detected_layout, not_read, survey
from data.folder_walk import entries_below, files_below, folders_in
from data.metadata_files import TABLES, open_image_folder, open_table
from data.parquet import open_parquet
from data.rows import Row, content_of
from data.sidecars import ImageDetector, Sidecars
from data.source import ReadOptions, Source, stamp_of
from data.splits import SPLITS
from data.webdataset import is_shard, open_shards

METADATA = ("metadata.jsonl", "metadata.csv")
LOOKED_INTO = 1_000  # files of an ImageFolder that are searched for other data


def stamp(place: str, options: ReadOptions) -> str:
    """Fingerprint of the source at `place`; archives are not unpacked."""
    path = Path(place)
    if is_file(path) and path.name.lower().endswith(ARCHIVE_SUFFIXES):
        return stamp_of([path, *(files_below(options.images) if options.images else ())])
    with closing(open_source(place, options)) as source:
        return source.stamp()


def open_source(place: str, options: ReadOptions) -> Source:
    """Open a data set: a folder, a table, an archive, or a data set of the hub.

    Raises `UserError` if there is nothing that can be read.
    """
    path = Path(place)
    if is_folder(path):
        if options.images:
            raise UserError(
                f"--images is for a table alone; {path} is a folder: give its table as SOURCE."
            )
        return _folder(path, options)
    if is_file(path):
        return _file(path, options)
    if is_there(path):
        raise UserError(f"{path} {_unfit(path)}; give a folder, a table or an archive.")
    if place.count("/") != 1 or place.startswith((".", "/", "~")):
        raise UserError(f"{place} does not exist; check the path.")
    try:
        return hub_datasets.from_hub(place, options)
    except UserError as error:
        raise UserError(f"There is no file or folder {place}. {error}") from error


def _unfit(path: Path) -> str:
    """The rest of a sentence about a path that is neither a file nor a folder."""
    try:
        opened(path).close()
    except OSError as error:
        return fault_of(error)
    return "has just appeared"


def _file(path: Path, options: ReadOptions) -> Source:
    if path.name.lower().endswith(".tar") and is_shard(path):
        return open_shards(str(path), path.parent, [path], options)
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
        return open_archive(path, partial(_folder, options=options))
    if path.suffix.lower() == ".parquet":
        return open_parquet(str(path), path.parent, [path], options)
    if path.suffix.lower() in TABLES:
        return open_table(path, options)
    raise UserError(
        f"{path} is of no known kind; give a folder, a {', '.join(TABLES)} or .parquet file, "
        f"or an archive ({', '.join(ARCHIVE_SUFFIXES)})."
    )


def _folder(folder: Path, options: ReadOptions) -> Source:
    names = ({"dataset_dict.json"}, {"state.json", "dataset_info.json"})
    if any(all(is_there(folder / name) for name in several) for several in names):
        return hub_datasets.from_disk(folder, options)
    metadata = _metadata(folder)
    contents = survey(_some_of(folder) if metadata else entries_below(folder), options)
    layout = (
        _image_folder(folder, metadata, options) if metadata
        else detected_layout(folder, contents, options)
    )  # fmt: skip
    if layout is None and options.uncaptioned and contents.pictures:
        return pictures_alone(folder, None)
    if layout is None:
        raise UserError(_nothing_found(folder))
    source, others = layout.opened(), not_read(folder, contents, layout, options)
    return replace(source, findings=(*others, *source.findings))


def _image_folder(
    folder: Path, metadata: list[tuple[Path, str]], options: ReadOptions
) -> DetectedLayout:
    opened = partial(open_image_folder, folder, metadata, options)
    return DetectedLayout(f"{metadata[0][0].name} is", [path for path, _ in metadata], opened)


def _some_of(folder: Path) -> Iterable[Path]:
    """The first files of a folder, and metadata files in its direct subfolders."""
    first = islice(files_below(folder), LOOKED_INTO)
    below = (folder / part / name for part in folders_in(folder) for name in METADATA)
    return dict.fromkeys(chain(first, (path for path in below if is_file(path))))


def _metadata(folder: Path) -> list[tuple[Path, str]]:
    """Metadata files of an ImageFolder with their splits; empty without a training split."""
    parts = [(folder, "train")] if any(is_there(folder / name) for name in METADATA) else []
    parts = parts or [(folder / name, split) for name, split in SPLITS.items()]
    files = [
        (part / name, split) for part, split in parts for name in METADATA
        if is_there(part / name)
    ]  # fmt: skip
    return files if any(split == "train" for _, split in files) else []


def pictures_alone(folder: Path, caption: str | None) -> Source:
    """Pictures that share one caption, as for DreamBooth, or have none."""

    def rows() -> Iterator[Row]:
        pictures = ImageDetector(Sidecars())
        for path in entries_below(folder):
            if path in pictures:
                name = path.relative_to(folder).as_posix()
                yield Row(name, name, partial(content_of, path), caption)

    if not is_folder(folder):
        raise UserError(f"The picture folder {folder} does not exist; check the path.")
    return Source(str(folder), rows, files=partial(files_below, folder))


def _nothing_found(folder: Path) -> str:
    wanted = f"{folder} has no metadata.jsonl or metadata.csv"
    files = list(islice(files_below(folder), 100 * LOOKED_INTO))
    meant = [
        path.relative_to(folder).as_posix() for path in files
        if path.suffix.lower() in TABLES or path.name.lower().startswith("metadata")
    ]  # fmt: skip
    if meant:
        return (
            f"{wanted}, but {', '.join(meant[:3])}: rename it, or have prepare_dataset.py "
            "make a data set of it."
        )
    if not files and (unfit := next(entries_below(folder), None)):
        return f"{wanted}, and {unfit.name} {_unfit(unfit)}; put files there."
    if not files:
        return f"{wanted}; it is empty: put pictures there and name them in a metadata.jsonl."
    if packed := [path.name for path in files if path.name.lower().endswith(ARCHIVE_SUFFIXES)]:
        return f"{wanted}, but {', '.join(packed[:3])}: give one to prepare_dataset.py as SOURCE."
    return f'{wanted}; add one that gives each picture "file_name" and "text".'
