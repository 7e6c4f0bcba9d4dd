"""The list of example images, to choose from."""

from __future__ import annotations

import html
from collections.abc import Sequence

from core.html import data_uri
from core.images import jpeg_of
from sampling.examples import Example
from webapp.ui import strings

# A component's own script: a click on an image becomes a click event with its number.
CHOOSE = """element.addEventListener("click", (event) => {
  const chosen = event.target.closest("button");
  if (chosen) trigger("click", { number: Number(chosen.dataset.number) });
});"""


def choice_of(examples: Sequence[Example]) -> str:
    """HTML: thumbnails, each a button that is labelled with its prompt."""
    buttons = (
        f'<button type="button" data-number="{number}" title="{_label(each)}">'
        f'<img src="{data_uri(jpeg_of(each.small))}" alt="{_label(each)}"></button>'
        for number, each in enumerate(examples)
    )
    return f'<div role="group" aria-label="{strings.EXAMPLES}">{"".join(buttons)}</div>'


def _label(example: Example) -> str:
    return html.escape(example.request.prompt)
