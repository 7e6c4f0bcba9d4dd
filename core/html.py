"""HTML pages from Jinja templates: escaped, loading nothing, written piece by piece."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, meta, select_autoescape

from core.files import replaced
from core.formatting import amount
from core.paths import ROOT
from core.printable import UNSEEN


def write_page(path: Path, pieces: Iterable[str]) -> None:
    """Write a page atomically, piece by piece.

    Raises `UserError` if it cannot be written; then nothing is left behind.
    """
    # Foreign text: what cannot be encoded, or reverses the direction, is shown as an escape.
    with (
        replaced(path) as staged,
        open(staged, "w", encoding="utf-8", errors="backslashreplace") as file,
    ):
        file.writelines(piece.translate(UNSEEN) for piece in pieces)


def data_uri(jpeg: bytes) -> str:
    """A JPEG file as the address of an image that is part of the page itself."""
    return f"data:image/jpeg;base64,{b64encode(jpeg).decode()}"


TEMPLATES = Environment(
    loader=FileSystemLoader(ROOT),
    autoescape=select_autoescape(("html",)),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    auto_reload=False,
)
TEMPLATES.filters |= {"amount": amount, "data_uri": data_uri}


def template(path: str) -> Template:
    """A template by its path in this project, loaded with all those that it refers to: one that is
    missing is noticed at the start, and one that changes during a long run does no harm.

    `render` makes a text of it, and `generate` pieces: iterators that it is given are not held in
    memory, unless a macro loops over them.
    """
    parsed = TEMPLATES.parse((ROOT / path).read_text(encoding="utf-8"))
    for other in filter(None, meta.find_referenced_templates(parsed)):
        template(other)
    return TEMPLATES.get_template(path)
