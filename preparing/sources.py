"""Every form of data that people have, as one stream of rows."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from lzma import LZMAError
from pathlib import Path

from core.inputs import fault_of, is_file, is_folder, is_there, opened
from errors import UserError
from preparing import tables
from preparing.folders import entries_below, files_below
from preparing.ledger import Finding
from preparing.rows import (
    PICTURE_SUFFIXES,
    TABLES,
    Row,
    catalogue,
    content_of,
    rows_of,
    text_pairs,
)
from preparing.text import count_lines

METADATA = ("metadata.jsonl", "metadata.csv")
BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, LZMAError, OSError)
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass(frozen=True)
class Reading:
    """How a source is to be read; None stands for what is usual."""

    image_column: str | None = None
    caption_column: str | None = None
    images: Path | None = None  # folder of the pictures; None: that of the table
    encoding: str = "utf-8"
    config_name: str | None = None  # configuration of a hub data set
    cache_dir: str | None = None  # where what is fetched from the hub is kept
    strict: bool = False  # for training: metadata have the columns of an ImageFolder

    @property
    def options(self) -> tuple[str, str]:
        """The options that name the columns of pictures and captions."""
        return (
            ("--image_column", "--caption_column") if self.strict
            else ("--image_key", "--caption_key")
        )  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A data set as it was found. `rows()` starts a new pass over it."""

    name: str  # what the user calls it
    rows: Callable[[], Iterator[Row]]
    total: int | None = None  # rows, where they can be counted without reading them
    folders: tuple[tuple[Path, str], ...] = ()  # where pictures lie, with their split
    pairs: bool = False  # captions in text files beside the pictures
    findings: tuple[Finding, ...] = ()  # on the form itself
    held_out: bool = False  # a part of it is not for training
    files: Callable[[], Iterable[Path]] = tuple  # what the data consist of
    identity: str = ""  # beside the files: what else tells these data from others
    close: Callable[[], None] = field(default=lambda: None)

    def stamp(self) -> str:
        """Changes when a file of the source does."""
        return _stamp(self.files(), self.identity)


def _stamp(files: Iterable[Path], identity: str = "") -> str:
    digest = hashlib.sha256(identity.encode())
    for path in files:
        about = path.stat()
        digest.update(
            f"{path}\0{about.st_size}\0{about.st_mtime_ns}\n".encode(errors="surrogateescape")
        )
    return digest.hexdigest()[:16]


def stamp(place: str, reading: Reading) -> str:
    """The stamp of the source at `place`; an archive is not unpacked for it."""
    path = Path(place)
    if is_file(path):
        files = [path, *(files_below(reading.images) if reading.images else ())]
        if path.name.lower().endswith(ARCHIVES):
            return _stamp(files)
    with closing(open_source(place, reading)) as source:
        return source.stamp()


def open_source(place: str, reading: Reading) -> Source:
    """The data at `place`: a folder, a table, an archive, or a data set of the hub.

    Raises `UserError` where there is nothing that can be read.
    """
    path = Path(place)
    if is_folder(path):
        if reading.images:
            raise UserError(
                f"--images is for a table alone; {path} is a folder: give its table as SOURCE."
            )
        return _folder(path, reading)
    if is_file(path):
        name = path.name.lower()
        if name.endswith(ARCHIVES):
            return _archive(path, reading)
        if path.suffix.lower() == ".parquet":
            return _parquet(place, [path], reading)
        if path.suffix.lower() in TABLES:
            return _table(path, reading)
        raise UserError(
            f"{path} is of no known kind; give a folder, a {', '.join(TABLES)} or .parquet file, "
            f"or an archive ({', '.join(ARCHIVES)})."
        )
    if is_there(path):
        raise UserError(f"{path} {_unfit(path)}; give a folder, a table or an archive.")
    if place.count("/") != 1 or place.startswith((".", "/", "~")):
        raise UserError(f"{place} does not exist; check the path.")
    try:
        return tables.from_hub(place, reading)
    except UserError as error:
        raise UserError(f"There is no file or folder {place}. {error}") from error


def _unfit(path: Path) -> str:
    """What a sentence says of what is neither a file nor a folder."""
    try:
        opened(path).close()
    except OSError as error:
        return fault_of(error)
    return "has just appeared"


def _folder(folder: Path, reading: Reading) -> Source:
    if any((folder / name).exists() for name in ("state.json", "dataset_dict.json")):
        return tables.from_disk(folder, reading)
    here = any(is_there(folder / name) for name in METADATA)
    parts = [(folder, "train")] if here else []
    parts = parts or [(folder / name, split) for name, split in tables.SPLITS.items()]
    found = [
        (part / name, split) for part, split in parts for name in METADATA
        if is_there(part / name)
    ]  # fmt: skip
    if any(split == "train" for _, split in found):
        return _image_folder(folder, found, reading)
    parquet = [path for path in files_below(folder) if path.suffix == ".parquet"]
    if parquet:
        return _parquet(str(folder), parquet, reading)
    if not reading.strict:
        others = [path for path in files_below(folder) if path.suffix.lower() in TABLES]
        if len(others) == 1:
            return _table(others[0], reading, name=str(folder))
        if others:
            names = ", ".join(str(path) for path in others[:5])
            raise UserError(f"{folder} holds several tables: {names}; give one of them as SOURCE.")
    if any(path.suffix.lower() == ".txt" for path in files_below(folder)):
        return Source(
            str(folder),
            partial(text_pairs, folder, reading.encoding),
            sum(path.suffix.lower() in PICTURE_SUFFIXES for path in entries_below(folder)),
            folders=((folder, "train"),),
            pairs=True,
            files=partial(files_below, folder),
        )
    raise UserError(_nothing_found(folder))


def pictures_alone(folder: Path, caption: str) -> Source:
    """Pictures without captions of their own, all called the same: for DreamBooth."""

    def rows() -> Iterator[Row]:
        for path in entries_below(folder):
            if path.suffix.lower() in PICTURE_SUFFIXES:
                name = path.relative_to(folder).as_posix()
                yield Row(name, name, partial(content_of, path), caption)

    if not is_folder(folder):
        raise UserError(f"The picture folder {folder} does not exist; check the path.")
    return Source(str(folder), rows, files=partial(files_below, folder))


def _nothing_found(folder: Path) -> str:
    wanted = f"{folder} has no metadata.jsonl or metadata.csv"
    files = list(files_below(folder))
    meant = [
        path.relative_to(folder).as_posix() for path in files
        if path.suffix.lower() in TABLES or path.name.lower().startswith("metadata")
    ]  # fmt: skip
    if meant:
        return (
            f"{wanted}, but {', '.join(meant[:3])}: rename it, or have prepare_dataset.py "
            "make a data set of it."
        )
    if not files:
        return f"{wanted}; it is empty: put pictures there and name them in a metadata.jsonl."
    return f'{wanted}; add one that gives each picture "file_name" and "text".'


def _image_folder(folder: Path, found: list[tuple[Path, str]], reading: Reading) -> Source:
    """Metadata beside the pictures, for one split or for several."""
    first = {path.parent: path for path, _ in reversed(found)}
    twice = [
        Finding(
            str(path.relative_to(folder)), f"there is {first[path.parent].name} as well; "
            "delete one of the two", fault=True,
        )
        for path, _ in found if first[path.parent] != path
    ]  # fmt: skip
    found = [(path, split) for path, split in found if first[path.parent] == path]
    streams = [
        partial(_table_rows, path, path.parent, reading, split, path.relative_to(folder))
        for path, split in found
    ]
    return Source(
        str(folder),
        lambda: chain.from_iterable(stream() for stream in streams),
        sum(_count(path, reading) for path, _ in found),
        folders=tuple((path.parent, split) for path, split in found),
        held_out=any(split == "test" for _, split in found),
        findings=tuple(twice),
        files=partial(files_below, folder),
    )


def _columns(reading: Reading) -> tuple[str | None, str | None]:
    """Names of the columns of a table; strict metadata have those of an ImageFolder."""
    if reading.strict:
        return "file_name", reading.caption_column or "text"
    return reading.image_column, reading.caption_column


def _table(path: Path, reading: Reading, name: str | None = None) -> Source:
    folder = reading.images or path.parent
    if not is_folder(folder):
        raise UserError(f"The picture folder {folder} does not exist; check --images.")
    return Source(
        name or str(path),
        partial(_table_rows, path, folder, reading),
        _count(path, reading),
        folders=((folder, "train"),),
        files=lambda: chain([path], (other for other in files_below(folder) if other != path)),
    )


def _table_rows(
    path: Path, folder: Path, reading: Reading, split: str = "train", name: Path | None = None
) -> Iterator[Row]:
    """Rows of a table; `name`: what it is called where several have the same."""
    entries = TABLES[path.suffix.lower()](path, reading.encoding)
    part = f"{name.parent}/" if name and name.parent.name else ""
    for row in rows_of(entries, path, folder, _columns(reading), reading.options, split):
        yield replace(row, where=part + row.where)


def _count(path: Path, reading: Reading) -> int:
    """Rows of a table; a CSV may have fewer, where texts hold line breaks."""
    if path.suffix.lower() == ".json":
        return sum(1 for _ in catalogue(path, reading.encoding))
    lines = count_lines(path)
    return lines - 1 if path.suffix.lower() == ".csv" else lines


def _parquet(name: str, paths: list[Path], reading: Reading) -> Source:
    # As the hub names them: test-00000-of-00001.parquet. A single file is all there is.
    parts = [
        (path, tables.SPLITS.get(path.name.split("-")[0], "train") if paths[1:] else "train")
        for path in paths
    ]
    return Source(
        name,
        partial(tables.parquet_rows, parts, reading),
        tables.parquet_count(paths),
        held_out=any(split == "test" for _, split in parts),
        files=lambda: paths,
    )


def _archive(path: Path, reading: Reading) -> Source:
    """Unpacked into a temporary folder, which `close` deletes."""
    temporary = tempfile.TemporaryDirectory(prefix="unpacked-")
    folder = Path(temporary.name)
    try:
        if path.name.lower().endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                _check_space(path, sum(each.file_size for each in archive.infolist()))
                archive.extractall(folder)
        else:
            with tarfile.open(path) as archive:
                _check_space(path, sum(member.size for member in archive))
                archive.extractall(folder, filter="data")
        inner = _folder(_innermost(folder), reading)
    except BROKEN as error:
        temporary.cleanup()
        raise UserError(f"{path} cannot be unpacked ({error}); fetch it again.") from error
    except RuntimeError as error:  # zipfile's word for a password
        temporary.cleanup()
        raise UserError(f"{path} cannot be unpacked: {error}.") from error
    except UserError as error:
        temporary.cleanup()
        raise UserError(str(error).replace(str(folder), str(path))) from None

    def rows() -> Iterator[Row]:
        try:
            yield from inner.rows()
        except UserError as error:
            raise UserError(str(error).replace(str(folder), str(path))) from None

    return Source(
        str(path), rows, inner.total, inner.folders, inner.pairs, inner.findings,
        inner.held_out, files=lambda: [path], close=temporary.cleanup,
    )  # fmt: skip


def _innermost(folder: Path) -> Path:
    """`folder`, or the one folder that is all it holds: archives have a top folder."""
    inside = [each for each in folder.iterdir() if each.name != "__MACOSX"]
    return _innermost(inside[0]) if len(inside) == 1 and inside[0].is_dir() else folder


def _check_space(path: Path, size: int) -> None:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > free:
        raise UserError(
            f"{path} unpacks to {size / 2**30:.1f} GiB, but {tempfile.gettempdir()} has "
            f"{free / 2**30:.1f} GiB free; set TMPDIR to a folder with more."
        )
