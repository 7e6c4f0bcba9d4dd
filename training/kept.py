"""Files of encoded pictures: mapped into memory, checked, and shared by runs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from core.files import replaced

KINDS = {torch.uint8: "U8", torch.float16: "F16"}  # as safetensors calls them


def write(path: Path, shapes, digests: list[bytes], known, encoded) -> None:
    """A file of latents: of the pictures that are `known`, and of those that are `encoded`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as staged:
        tensors = mapped(staged, shapes)
        tensors["content"][:] = _rows_of(digests)
        for place, digest in enumerate(digests):
            if digest in known:
                file, row = known[digest]
                tensors["mean"][place], tensors["std"][place] = file["mean"][row], file["std"][row]
        for rows, mean, std in encoded:
            tensors["mean"][rows], tensors["std"][rows] = mean, std
        tensors["check"][:] = _checks(tensors)


def _checks(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """The SHA-256 of each row of mean and std: uint8 n,32."""

    def check(row: int) -> bytes:
        both = (tensors[name][row].contiguous().numpy() for name in ("mean", "std"))
        return hashlib.sha256(b"".join(each.tobytes() for each in both)).digest()

    with ThreadPoolExecutor() as pool:
        return _rows_of(pool.map(check, range(len(tensors["mean"]))))


def _rows_of(digests: Iterable[bytes]) -> torch.Tensor:
    return torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8).view(-1, 32)


def known_in(files, run) -> dict[bytes, tuple[dict[str, torch.Tensor], int]]:
    """By the SHA-256 of a picture's file: a kept file that holds its latents, and their row."""
    found = [file for path in files if (file := opened(path, run))]
    return {
        bytes(digest): (file, row)
        for file in found
        for row, digest in enumerate(file["content"].numpy())
    }


def opened(path: Path, run) -> dict[str, torch.Tensor] | None:
    """What a kept file holds; None where there is none, or, with a word to the user, where it is
    damaged."""
    if not path.exists():
        return None
    try:
        tensors = load_file(path)
        if torch.equal(tensors["check"], _checks(tensors)):
            return tensors
        reason = "its content is not what was written"
    except (OSError, SafetensorError, KeyError) as error:
        reason = error
    run.say(f"{path} is damaged ({reason}): the pictures are encoded anew.")
    path.unlink(missing_ok=True)
    return None


def mapped(path: Path, shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]]):
    """A new safetensors file, and its tensors as maps of it: what is written to them is written
    to the file, without holding it in memory."""
    header, start = {}, 0
    for name, (kind, shape) in shapes.items():
        size = math.prod(shape) * kind.itemsize
        about = {"dtype": KINDS[kind], "shape": shape, "data_offsets": (start, start + size)}
        header[name], start = about, start + size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + start)
    whole = torch.from_file(str(path), shared=True, size=8 + len(text) + start, dtype=torch.uint8)
    content = whole[8 + len(text) :]
    return {
        name: content[slice(*header[name]["data_offsets"])].view(kind).view(shape)
        for name, (kind, shape) in shapes.items()
    }
