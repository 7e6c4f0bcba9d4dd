"""What of a run can be taken away: its model's folder as a zip, made while it is sent, and its
LoRA as a file for other programs."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from io import RawIOBase
from pathlib import Path

from core.bounded_json import JSONFault, read
from core.errors import UserError
from core.paths import is_folder, opened
from core.run_folder import NOT_UPLOADED
from core.tensor_names import KOHYA_FILE
from webapp.runs.folder import RunFolder
from webapp.runs.plans import last_sentence
from webapp.runs.process import Commands
from webapp.runs.state import MODEL

CHUNK_BYTES = 2**20
MAX_FILES = 20_000
MAX_EXPORT_SECONDS = 900
CHANNELS = 4  # of Stable Diffusion's latents, which its own layout has room for
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can state


class Passed(RawIOBase):
    """A file that keeps what is written only until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, content, /) -> int:
        self._parts.append(bytes(content))
        return len(content)

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def model_files(folder: Path) -> list[Path]:
    """The files of the model in a run's folder, without states of training, logs and what the page
    keeps there: what would go to the hub. Links out of the folder are left out."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if is_hidden or any(fnmatchcase(name, pattern) for pattern in NOT_UPLOADED):
            continue
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            found.append(path)
        if len(found) > MAX_FILES:
            raise UserError(f"{folder} holds more than {MAX_FILES:,} files. Copy it yourself.")
    return found


def may_be_one_file(model: str) -> bool:
    """Whether a model (of a LoRA: its base) may have a file in Stable Diffusion's own layout.
    What the config does not tell is left to export.py."""
    try:
        config = read(Path(model) / "vae" / "config.json")
    except (OSError, JSONFault):
        return not is_folder(model)  # on the hub
    return isinstance(config, dict) and config.get("latent_channels") == CHANNELS


def one_file(run: RunFolder, commands: Commands, folder: Path) -> Path:
    """The run's model as one .safetensors file in `folder`. Raises UserError, in the words of
    export.py."""
    target = folder / f"{run.name}.safetensors"
    words = [str(run.path), "--to", str(target)]
    code, printed = commands.answer("export.py", words, MAX_EXPORT_SECONDS)
    if code:
        raise UserError(last_sentence(printed))
    return target


def zipped(run: RunFolder) -> Iterator[bytes]:
    """A zip of the model in pieces, of which nothing is stored. Weights do not compress.

    Raises OSError in its middle where the model is replaced meanwhile: half of each is no model.
    """
    made, mark = Passed(), run.path / MODEL
    before = mark.stat()
    with zipfile.ZipFile(made, "w") as archive:
        for path in model_files(run.path):
            entry = zipfile.ZipInfo(f"{run.name}/{path.relative_to(run.path).as_posix()}", EPOCH)
            with opened(path) as file, archive.open(entry, "w", force_zip64=True) as writing:
                while content := file.read(CHUNK_BYTES):
                    writing.write(content)
                    yield made.taken()
        now = mark.stat()
        if (now.st_ino, now.st_mtime_ns) != (before.st_ino, before.st_mtime_ns):
            raise OSError(f"{run.path} was written anew while it was being sent")
    yield made.taken()


def lora_of(run: RunFolder) -> Path | None:
    """The LoRA for other programs, in kohya's layout; None where there is none."""
    path = run.path / KOHYA_FILE
    return path if path.is_file() and not path.is_symlink() else None
