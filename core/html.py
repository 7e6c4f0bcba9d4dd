"""HTML pages from Jinja templates: escaped, loading nothing, written piece by piece."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from html import escape
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, meta, select_autoescape

from core.files import replaced
from core.formatting import amount
from core.paths import ROOT
from core.printable import UNSEEN


STYLE = """
:root { --paper: #faf8f4; --ink: #292524; --faint: #78716c; --line: #e7e5e4; --accent: #ea580c }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0c0a09; --ink: #e7e5e4; --faint: #a8a29e; --line: #44403c; --accent: #f97316 }
}
:root { color-scheme: light dark }
body { background: var(--paper); color: var(--ink); font: 1rem/1.5 ui-sans-serif, system-ui,
  sans-serif; margin: 0 auto; max-width: 64rem; overflow-wrap: anywhere; padding: 2.5rem 1.5rem }
h1 { font-size: 1.75rem; font-weight: 650; letter-spacing: -0.02em; line-height: 1.25; margin: 0 }
h2 { font-size: 1rem; font-weight: 600; margin: 2.5rem 0 0.5rem }
p, th, small { color: var(--faint); font-size: 0.875rem; font-weight: 400; margin: 0.25rem 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin-top: 1.5rem }
th, td { border-bottom: 1px solid var(--line); padding: 0.375rem 0; text-align: left;
  vertical-align: baseline }
th { padding-right: 2rem; white-space: nowrap }
ul, ol { list-style: none; margin: 0; padding: 0 }
.sheet { display: grid; gap: 0.5rem; grid-template-columns: repeat(auto-fill,
  minmax(4.5rem, 1fr)); margin-top: 0.75rem }
.sheet img { aspect-ratio: 1; display: block; object-fit: contain; width: 100% }
.plots { display: grid; gap: 1rem 2rem; grid-template-columns: repeat(auto-fit,
  minmax(min(17rem, 100%), 1fr)); margin-top: 2.5rem }
svg { display: block; fill: var(--faint); font-size: 11px; max-width: 26rem; width: 100% }
svg rect { fill: var(--accent) }
svg line { stroke: var(--line) }
ol li { border-top: 1px solid var(--line); column-gap: 1rem; display: grid;
  grid-template-columns: 3.5rem 1fr; min-height: 3.5rem; padding: 0.5rem 0 }
ol img { height: 3.5rem; object-fit: contain; width: 3.5rem }
ol div { align-self: center; grid-column: 2 }
ol small { display: block; margin: 0 }
@media (max-width: 48rem) { body { padding: 1.25rem 1rem } th { padding-right: 1rem } }
"""


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


def page_head(title: str, style: str = STYLE) -> str:
    """Start of a page, up to its heading; its policy lets it load nothing."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # The browser enforces that the page loads nothing.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">\n"
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{style}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n"
    )


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
