"""Example images in a model folder, with the prompts and settings that drew them."""

from __future__ import annotations

import html
from collections.abc import Sequence

from sampling.examples import Example
from webapp.ui import strings
from webapp.ui.messages import data_uri

MAX_EXAMPLES, MAX_BYTES = 12, 4 * 2**20  # of a model; of each
THUMBNAIL = 128  # pixels of its longer side
# A component's own script: a click on an image becomes a click event with its number.
CHOOSE = """element.addEventListener("click", (event) => {
  const chosen = event.target.closest("button");
  if (chosen) trigger("click", { number: Number(chosen.dataset.number) });
});"""


@dataclass(frozen=True)
class Example:
    """A PNG, the request that draws it again, and a thumbnail."""

    request: Request
    png: bytes
    small: Image.Image  # RGB


def examples_of(model: str) -> list[Example]:
    """The images in `model`/examples, by file name. One without settings is left out, and the log
    says why."""
    found = []
    for path in sorted(Path(model).glob("examples/*.png"))[:MAX_EXAMPLES]:
        try:
            found.append(example_of(read_bytes(path, MAX_BYTES)))
        except (OSError, UserError) as error:
            logging.getLogger(__name__).warning("%s is not shown: %s", path, error)
    return found


def example_of(png: bytes) -> Example:
    """Raises UserError, or OSError, for what cannot be shown."""
    request = request_of(png)
    try:
        with Image.open(BytesIO(png), formats=["PNG"]) as image:
            if max(image.size) > BOUNDS["width"][1]:
                raise UserError(f"It has {image.width} x {image.height} pixels.")
            small = image.convert("RGB")
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:  # damaged chunks
        raise UserError("This is no PNG picture.") from error
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return Example(request, png, small)


def choice_of(examples: Sequence[Example]) -> str:
    """HTML: thumbnails, each a button that is labelled with its prompt."""
    buttons = (
        f'<button type="button" data-number="{number}" title="{_label(each)}">'
        f'<img src="{data_uri(each.small)}" alt="{_label(each)}"></button>'
        for number, each in enumerate(examples)
    )
    return f'<div role="group" aria-label="{strings.EXAMPLES}">{"".join(buttons)}</div>'


def _label(example: Example) -> str:
    return html.escape(example.request.prompt)
