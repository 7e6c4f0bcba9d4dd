"""ZIP and tar archives, unpacked into a temporary folder."""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from lzma import LZMAError
from pathlib import Path

from core.errors import UserError, is_ours
from core.files import temporary_folder
from core.paths import opened
from data.folder_walk import NO_DATA
from data.limits import FOLDERS_DEEP
from data.rows import Row
from data.source import Source

BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, KeyError, ValueError, zlib.error, LZMAError,
    OSError,
)  # fmt: skip
BLOCK = 512  # bytes of a tar block


def open_archive(path: Path, read: Callable[[Path], Source]) -> Source:
    """Unpack an archive and open it with `read`; `close` deletes the unpacked files."""
    temporary = temporary_folder("unpacked-")
    folder = Path(temporary.name)
    try:
        _unpack(path, folder)
        inner = read(_innermost(folder))
    except UserError as error:
        temporary.cleanup()
        raise UserError(str(error).replace(str(folder), str(path))) from error
    except BaseException:
        temporary.cleanup()
        raise

    def rows() -> Iterator[Row]:
        try:
            yield from inner.rows()
        except UserError as error:
            raise UserError(str(error).replace(temporary.name, str(path))) from None

    def close() -> None:
        inner.close()
        temporary.cleanup()

    findings = tuple(
        replace(each, where=each.where.replace(str(folder), str(path)),
                sentence=each.sentence.replace(str(folder), str(path)))
        for each in inner.findings
    )  # fmt: skip
    return replace(
        inner, name=str(path), rows=rows, findings=findings, files=lambda: [path], close=close
    )


def members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Iterate over members in constant memory. Raises ReadError for a truncated archive."""
    while member := archive.next():
        archive.members.clear()  # type: ignore[attr-defined]  # not in the type stubs
        if archive.offset <= member.offset:  # negative size: an endless loop
            raise tarfile.ReadError("a file in it has less than no bytes")
        yield member
    if isinstance(archive.fileobj, io.BufferedReader):  # compressed archives have checksums
        archive.fileobj.seek(archive.offset)
        if any(archive.fileobj.read(BLOCK)):  # tarfile takes an invalid header for the end
            raise tarfile.ReadError("unexpected end of data")


def _unpack(path: Path, folder: Path) -> None:
    try:
        if path.name.lower().endswith(".zip"):
            _unzip(path, folder)
        else:
            _untar(path, folder)
    except BROKEN as error:
        if is_ours(error):
            raise
        raise UserError(f"{path} cannot be unpacked ({error}); fetch it again.") from error
    except RuntimeError as error:  # zipfile, for an encrypted archive
        raise UserError(f"{path} cannot be unpacked: {error}.") from error


def _unzip(path: Path, folder: Path) -> None:
    with opened(path) as file, zipfile.ZipFile(file) as archive:
        _check(path, ((each.filename, each.file_size) for each in archive.infolist()))
        archive.extractall(folder)


def _untar(path: Path, folder: Path) -> None:
    with opened(path) as file, tarfile.open(fileobj=file) as archive:
        _check(path, ((member.name, member.size) for member in members(archive)))
    with opened(path) as file, tarfile.open(fileobj=file) as archive:
        for member in members(archive):
            archive.extract(member, folder, filter="data")


def _innermost(folder: Path) -> Path:
    """Descend through folders that hold a single folder: archives have a top folder."""
    while True:
        inside = [each for each in folder.iterdir() if each.name != NO_DATA]
        if len(inside) != 1 or not inside[0].is_dir():
            return folder
        folder = inside[0]


def _check(path: Path, files: Iterable[tuple[str, int]]) -> None:
    """Raise `UserError` for an archive nested too deep to delete, or too large for the disk.

    `files`: names and sizes of its members.
    """
    size = 0
    for name, member_size in files:
        size += member_size
        if name.count("/") > FOLDERS_DEEP:
            raise UserError(
                f"{path} holds folders in each other, more than {FOLDERS_DEEP} deep; pack it again."
            )
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > free:
        raise UserError(
            f"{path} unpacks to {size / 2**30:.1f} GiB, but {tempfile.gettempdir()} has "
            f"{free / 2**30:.1f} GiB free; set TMPDIR to a folder with more."
        )
