"""Which networks of others look at the pictures: --judge NAME=PATH, and --inception FILE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from core.errors import UserError
from core.printable import quoted
from evaluation.csd import Csd
from evaluation.dino import Dino, Dinov2
from evaluation.fid import Inception
from evaluation.judge import ImageEncoder
from evaluation.sscd import Sscd

CSD, DINO, DINOV2, INCEPTION, SSCD = "csd", "dino", "dinov2", "inception", "sscd"
KINDS: dict[str, type[ImageEncoder]] = {
    CSD: Csd, DINO: Dino, DINOV2: Dinov2, SSCD: Sscd, INCEPTION: Inception
}  # fmt: skip
NAMES = tuple(name for name in KINDS if name != INCEPTION)  # it has an option of its own


def chosen(given: Iterable[str] | None, inception: str | None = None) -> dict[str, str]:
    """Paths of weights by the judge's name, of texts NAME=PATH. Raises UserError for what is no
    such text, an unknown name and a name that is there twice."""
    found = {}
    for text in given or ():
        name, sign, path = text.partition("=")
        if name not in NAMES or not sign or not path:
            known = ", ".join(NAMES)
            raise UserError(f"--judge {quoted(text)} is no NAME=PATH with one of: {known}.")
        if name in found:
            raise UserError(f"--judge {name} is there twice. Leave one of them out.")
        found[name] = path
    return found | ({INCEPTION: inception} if inception else {})


def check(paths: Mapping[str, str]) -> None:
    """Raise UserError for weights that are not there, or not those of their judge."""
    for name, path in paths.items():
        KINDS[name].check(path)


def load(paths: Mapping[str, str], device: str = "cpu") -> dict[str, ImageEncoder]:
    """Open them. Raises UserError likewise."""
    return {name: KINDS[name].load(path, device) for name, path in paths.items()}
