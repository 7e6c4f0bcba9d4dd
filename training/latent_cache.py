"""The latent cache: files of encoded pictures, written row by row, verified, shared by runs.

A safetensors file with a row per picture: `content` and `check`, the SHA-256 of the picture's file
and of its latents, `mean` and `std`. A row counts once its check is right, so that a kill costs one
row. Nothing is memory-mapped: a mapped file that is truncated, or on a full disk, ends the process
with SIGBUS, where reading and writing raise an error.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch

from core.bounded_json import loads
from core.disk import NO_ROOM, allocate, lock
from core.errors import UserError, reason_of
from core.files import discard, flush, remove_leftovers, unwritable
from core.formatting import size

if TYPE_CHECKING:
    from training.run import Run

KINDS = {torch.uint8: "U8", torch.float16: "F16"}  # as safetensors calls them
MAX_HEADER_BYTES = 2**20
PARTIAL = ".partial"  # after the hidden name of a file that is being written

Place = tuple[int, tuple[int, ...], torch.dtype]  # where a tensor begins, its shape and dtype
Shapes = dict[str, tuple[torch.dtype, tuple[int, ...]]]


class CorruptCache(UserError):
    """A cache file differs from what was written; `damage` says how."""

    def __init__(self, path: Path, damage: str):
        super().__init__(f"{path} is damaged ({damage}); run the command again to replace it.")
        self.damage = damage


class CacheFile:
    """An open cache file, whose rows are read on demand. Raises `CorruptCache`."""

    def __init__(self, path: Path, mode: str = "rb"):
        self.path, self.file, self._lock = path, path.open(mode), Lock()
        try:
            length = int.from_bytes(self.read(0, 8), "little")
            text = bytes(self.read(8, min(length, MAX_HEADER_BYTES)))
            self._places = _places_in(loads(text, MAX_HEADER_BYTES), 8 + length)
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptCache(path, "it has no header") from error
        self.content, self.check = (self.all_of(name) for name in ("content", "check"))
        self.mean, self.std = (CachedTensor(self, *self._places[name]) for name in ("mean", "std"))

    def __len__(self) -> int:
        return len(self.content)

    def whole(self) -> np.ndarray:
        """Whether each row is as it was written: bool n."""
        whole: np.ndarray = np.asarray(self.check.any(1))  # else it was never written
        rows = np.flatnonzero(whole)
        with ThreadPoolExecutor() as pool:
            checks = pool.map(lambda row: check_of(self.mean[row], self.std[row]), rows.tolist())
            whole[rows] = [a == bytes(b) for a, b in zip(checks, self.check[rows], strict=True)]
        return whole

    def all_of(self, name: str) -> np.ndarray:
        """A whole tensor of digests: uint8 n,32."""
        start, shape, _ = self._places[name]
        return np.frombuffer(self.read(start, math.prod(shape)), np.uint8).reshape(shape).copy()

    def place_of(self, name: str, row: int) -> int:
        """Where a row of a tensor begins in the file."""
        start, shape, kind = self._places[name]
        return start + row * math.prod(shape[1:]) * kind.itemsize

    def read(self, start: int, count: int) -> bytearray:
        with self._lock:
            try:
                self.file.seek(start)
                content = bytearray(self.file.read(count))
            except OSError as error:
                raise CorruptCache(self.path, reason_of(error)) from error
        if len(content) < count:
            raise CorruptCache(self.path, "it is cut short")
        return content


class CachedTensor:
    """A tensor n,V,... in a file, read on demand: [row], [rows, variants], or all by [:]."""

    def __init__(self, cached: CacheFile, start: int, shape: tuple[int, ...], kind: torch.dtype):
        self.cached, self.start, self.shape, self.dtype = cached, start, torch.Size(shape), kind

    def __getitem__(self, which) -> torch.Tensor:
        if which == slice(None):
            return self._read(0, self.shape)
        if not isinstance(which, tuple):
            return self._read(which * self.shape[1], self.shape[1:])
        rows, variants = which
        variants = np.broadcast_to(variants, len(rows))
        return torch.stack([
            self._read(row * self.shape[1] + int(variant), self.shape[2:])
            for row, variant in zip(rows, variants, strict=True)
        ])  # fmt: skip

    def _read(self, number: int, shape: tuple[int, ...]) -> torch.Tensor:
        """The tensor of `shape` that begins with variant `number`, counted over all rows."""
        size = math.prod(self.shape[2:]) * self.dtype.itemsize
        content = self.cached.read(
            self.start + number * size, math.prod(shape) * self.dtype.itemsize
        )
        return torch.frombuffer(content, dtype=self.dtype).view(shape)


def _places_in(header: object, start: int) -> dict[str, Place]:
    """The tensors of a file by its header. Raises ValueError, KeyError or TypeError if that is not
    the header of a cache file."""
    if not isinstance(header, dict):
        raise TypeError("no JSON object")
    kinds = {name: kind for kind, name in KINDS.items()}
    places = {}
    for name in ("content", "check", "mean", "std"):
        about = header[name]
        first, shape = about["data_offsets"][0], tuple(about["shape"])
        digests = name in ("content", "check")
        if len(shape) != (2 if digests else 5) or not all(
            isinstance(n, int) for n in (first, *shape)
        ):
            raise ValueError(f"{name} has another shape")
        places[name] = (start + first, shape, kinds[about["dtype"]])
    return places


def check_of(mean: torch.Tensor, std: torch.Tensor) -> bytes:
    """The SHA-256 of a row."""
    return hashlib.sha256(mean.numpy().tobytes() + std.numpy().tobytes()).digest()


def opened(path: Path, run: Run) -> CacheFile | None:
    """A cache file; None if there is none or, with a warning, if it is damaged, and then
    deleted."""
    if not path.exists():
        return None
    try:
        cached = CacheFile(path)
        if cached.whole().all():
            return cached
        reason = "its content is not what was written"
    except CorruptCache as error:
        reason = error.damage
    run.say(f"{path} is damaged ({reason}): encoding its pictures again.")
    path.unlink(missing_ok=True)
    return None


class CacheWriter(CacheFile):
    """A cache file being written, locked, with the rows of earlier runs."""

    def __init__(self, path: Path):
        super().__init__(path, "r+b")
        self.missing = np.flatnonzero(~self.whole()).tolist()  # rows

    def put(self, row: int, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Write a row, then its check."""
        for name, tensor in (("mean", mean), ("std", std)):
            self._write(self.place_of(name, row), tensor.numpy().tobytes())
        self._write(self.place_of("check", row), check_of(mean, std))

    def adopt(self, other: CacheFile, rows: np.ndarray) -> None:
        """Copy missing rows from the `rows`, bool n, of another file."""
        known = {bytes(other.content[row]): row for row in np.flatnonzero(rows)}
        missing = []
        for row in self.missing:
            there = known.get(bytes(self.content[row]))
            if there is None:
                missing.append(row)
            else:
                self.put(row, other.mean[there], other.std[there])
        self.missing = missing

    def _write(self, start: int, content: bytes) -> None:
        self.file.seek(start)
        self.file.write(content)
        self.file.flush()  # to the kernel, so that it survives a kill


@contextmanager
def unfinished(
    path: Path, shapes: Shapes, digests: list[bytes], run: Run
) -> Iterator[CacheWriter | None]:
    """Context with a file that is renamed to `path` at the end; None if another run has written it.

    Raises `UserError` if there is no room, before anything is encoded.
    """
    staged = path.with_name(f".{path.name}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(staged, run):
            if opened(path, run) is not None:
                staged.unlink()
                yield None
                return
            _begin(staged, shapes, digests)
            file = CacheWriter(staged)
            yield file
            file.file.close()
            flush(staged)
            staged.replace(path)
            flush(path.parent, deep=False)
    except OSError as error:
        raise unwritable(path, error) from error


def _locked(staged: Path, run: Run):
    """The file, open and locked until it is closed; waits for other runs."""
    while True:
        file = staged.open("ab")
        if not lock(file.fileno(), wait=False):
            run.say(f"Another run is encoding into {staged.parent}: waiting for it.")
            lock(file.fileno())
        with suppress(FileNotFoundError):  # renamed meanwhile
            if os.path.samestat(os.fstat(file.fileno()), staged.stat()):
                return file
        file.close()


def _begin(staged: Path, shapes: Shapes, digests: list[bytes]) -> None:
    """Allocate the file and write its header, unless an earlier run has."""
    header, total = _layout(shapes)
    content = b"".join(digests)
    with staged.open("r+b") as file:
        begun = staged.stat().st_size == total and file.read(len(header)) == header
        if begun and file.read(len(content)) == content:
            return
        try:
            file.truncate(0)
            allocate(file.fileno(), total)
        except OSError as error:
            discard(staged)
            if error.errno not in NO_ROOM:
                raise
            raise UserError(
                f"--latents_dir {staged.parent} has no room for {size(total)} of latents of "
                f"{len(digests):,} pictures ({error.strerror}): make room, name another folder, or "
                "leave it out."
            ) from error
        file.seek(0)
        file.write(header + content)


def _layout(shapes: Shapes) -> tuple[bytes, int]:
    """The header of the file, and its size in bytes."""
    header, start = {}, 0
    for name, (kind, shape) in shapes.items():
        end = start + math.prod(shape) * kind.itemsize
        header[name] = {"dtype": KINDS[kind], "shape": shape, "data_offsets": (start, end)}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, 8 + len(text) + start


def adopt(file: CacheWriter, kind: str, run: Run) -> None:
    """Copy rows from other cache files of the same kind; delete unfinished ones of killed runs."""
    folder, pattern = file.path.parent, f"latents-{kind}-*.safetensors"
    remove_leftovers(folder, pattern)
    for path in folder.glob(pattern):
        if cached := opened(path, run):
            file.adopt(cached, np.ones(len(cached), bool))
    for path in folder.glob(f".{pattern}{PARTIAL}"):
        with path.open("rb") as left:
            if path == file.path or not lock(left.fileno(), wait=False):
                continue
            with suppress(CorruptCache):  # killed before it had a header
                other = CacheFile(path)
                file.adopt(other, other.whole())
            discard(path)
