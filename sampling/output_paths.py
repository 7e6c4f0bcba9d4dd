"""The paths that generate.py writes pictures to."""

from itertools import chain, count
from pathlib import Path

from core.errors import UserError
from core.files import remove_leftovers
from core.paths import is_folder
from sampling.image import Picture


class OutputPaths:
    """Names pictures after --output: a file, or a folder in which nothing is replaced."""

    def __init__(self, output: str, pictures: int):
        """Creates the folder, so that a bad path is refused before anything is drawn."""
        self._path = Path(output)
        self._pictures = pictures
        is_file = self._path.suffix.lower() == ".png" and not is_folder(self._path)
        if self._path.suffix.lower() in (".jpg", ".jpeg", ".webp", ".gif", ".bmp"):
            raise UserError(
                f"--output {output}: pictures are PNG files, which carry their settings. "
                "Give a name ending in .png, or a folder."
            )
        self._folder = self._path.parent if is_file else self._path
        self._stem = self._path.stem if is_file else None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self._folder, "*.png")
        except OSError as error:
            raise UserError(f"--output {output}: {error.strerror}. Choose another path.") from error

    def path(self, picture: Picture, number: int) -> Path:
        """The path of picture `number`, counted from 1."""
        if self._stem is None:
            return free_path(self._folder / picture.file_name)
        return self._path if self._pictures == 1 else self._folder / f"{self._stem}-{number}.png"


def free_path(path: Path) -> Path:
    """`path`, or the first of path-2, path-3, ... that does not exist."""
    numbered = (path.with_stem(f"{path.stem}-{n}") for n in count(2))
    return next(p for p in chain([path], numbered) if not p.exists())
