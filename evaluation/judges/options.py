"""The judges that the user chose: --judge NAME=PATH, and --inception FILE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from core.errors import UserError
from core.printable import quoted
from evaluation.judges import CSD, DINO, DINOV2, INCEPTION, SSCD
from evaluation.judges.csd import Csd
from evaluation.judges.dino import Dino, Dinov2
from evaluation.judges.encoder import ImageEncoder
from evaluation.judges.inception import Inception
from evaluation.judges.sscd import Sscd

KINDS: dict[str, type[ImageEncoder]] = {
    CSD: Csd, DINO: Dino, DINOV2: Dinov2, SSCD: Sscd, INCEPTION: Inception
}  # fmt: skip
NAMES = tuple(name for name in KINDS if name != INCEPTION)  # which has an option of its own


def chosen(given: Iterable[str] | None, inception: str | None = None) -> dict[str, str]:
    """Path of the weights by judge, from NAME=PATH arguments. Raises UserError for a malformed
    argument, an unknown name or a repeated name."""
    paths: dict[str, str] = {}
    for text in given or ():
        name, sign, path = text.partition("=")
        if name not in NAMES or not sign or not path:
            known = ", ".join(NAMES)
            raise UserError(f"--judge {quoted(text)} is no NAME=PATH with one of: {known}.")
        if name in paths:
            raise UserError(f"--judge {name} is there twice. Leave one of them out.")
        paths[name] = path
    return paths | ({INCEPTION: inception} if inception else {})


def check(paths: Mapping[str, str]) -> None:
    """Raise UserError for weights that are missing or belong to another network."""
    for name, path in paths.items():
        KINDS[name].check(path)


def load(paths: Mapping[str, str], device: str = "cpu") -> dict[str, ImageEncoder]:
    """Load the judges. Raises UserError like `check`."""
    return {name: KINDS[name].load(path, device) for name, path in paths.items()}
