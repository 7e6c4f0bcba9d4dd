"""HTML of the sentences and small images that the page shows while it is used."""

import html
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from PIL import Image

from core.html import data_uri
from core.images import jpeg_of
from sampling.request import Request
from webapp.gradio_patches import event_data
from webapp.job import NotSaved, PromptTruncated, Queued, Step
from webapp.ui import strings
from webapp.ui.permalink import init_image_digest, link_to

KEEP_SEED = f' (<button type="button" data-kept="{strings.SEED_KEPT}">{strings.KEEP_SEED}</button>)'
SEED_KEPT = f" ({strings.SEED_KEPT})"
# A component's own script: a press of that button becomes a click event of the component, and a
# click on the link copies it, as the page would lose all by following it. Where nothing may be
# copied, as over plain HTTP, and with keys as for any link, it opens beside the page.
STATUS_CLICKS = """element.addEventListener("click", (event) => {
  const pressed = event.target.closest("button"), link = event.target.closest("a");
  if (link && navigator.clipboard && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    navigator.clipboard.writeText(link.href).then(
      () => { link.textContent = link.dataset.copied; }, () => window.open(link.href));
  }
  if (!pressed) return;
  pressed.replaceWith(pressed.dataset.kept);
  trigger("click");
});"""

MAX_UNREAD = 60  # characters of a prompt's end that the status quotes
MAX_NAME = 80  # characters of a name from run.json
SMALL_SIDE = 256  # pixels; page.css shows such pictures at 336


class ProgressText:
    """A drawing's progress in words: its place in the queue, its step, and the time left."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None  # step and time of the first one told

    def text(self, event: Queued | Step) -> str:
        """HTML."""
        if isinstance(event, Queued):
            ahead = event.ahead
            if event.held:
                return note(strings.HELD)
            return note(strings.WAITING.format(ahead=ahead) if ahead else strings.STARTING)
        if not event.total:
            return note(strings.GETTING_READY)
        now = time.monotonic()
        self._first = self._first or (event.done, now)
        done, seconds = event.done - self._first[0], now - self._first[1]
        told = strings.STEP_OF.format(done=event.done, total=event.total)
        if done and seconds > 1:
            each = seconds / done
            left = math.ceil(each * (event.total - event.done))
            told += f" · {strings.PACE.format(each=each, left=left)}"
        bar = f'<progress value="{event.done}" max="{event.total}"></progress>'
        return f"{bar}<p>{told}</p>"


def notice(event: PromptTruncated | NotSaved) -> str:
    """A sentence on what was not as the visitor meant it, though the images are drawn."""
    if isinstance(event, PromptTruncated):
        words = event.words  # the visitor has them all in the prompt: how they begin is enough
        begun = words if len(words) <= MAX_UNREAD else f"{words[:MAX_UNREAD].rstrip()} ..."
        return strings.PROMPT_UNREAD.format(unread=begun)
    return event.sentence


def event_value(event: gr.EventData, name: str) -> object:
    """What a component's script sends with an event; None where it does not, as anybody can make
    up an event."""
    return event_data(event).get(name)


def head(title: str, name: str, run: dict) -> str:
    """Title, model and, where its run.json has them, training data."""
    told = ["" if name == title else name, origin(run)]
    return f"<h1>{html.escape(title)}</h1><p>{html.escape(' · '.join(filter(None, told)))}</p>"


def origin(run: dict) -> str:
    """The base model and the number of training images, where its run.json says so."""
    base, pictures = run.get("base_model"), run.get("dataset", {}).get("pictures")
    if not isinstance(base, str) or not base or not isinstance(pictures, int):
        return ""
    told = strings.FINE_TUNED_ON_ONE if pictures == 1 else strings.FINE_TUNED
    return told.format(pictures=pictures, base=_own_name(base))


def _own_name(model: str) -> str:
    """A hub id, or the name of a folder without its path, which is nobody's business."""
    is_id = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", model) and not Path(model).exists()
    return model if is_id else Path(model).name


def size_class(side: int | None) -> list[str]:
    """The CSS class of a model whose images have few pixels a side."""
    return ["small"] if side and side <= SMALL_SIDE else []


def inline(images: Sequence[Image.Image]) -> str:
    """Small images in a grid, without files of their own."""
    drawn = [f'<img src="{data_uri(jpeg_of(image))}" alt="">' for image in images]
    columns = math.ceil(math.sqrt(len(drawn)))
    return f'<div style="grid-template-columns: repeat({columns}, 1fr)">{"".join(drawn)}</div>'


def note(text: str, problem: bool = False) -> str:
    """A paragraph that screen readers announce; a problem, at once."""
    attributes = ' class="problem" role="alert"' if problem else ' role="status"'
    return f"<p{attributes}>{html.escape(text)}</p>"


def summary(
    request: Request,
    seconds: float | None = None,
    model: str = "",
    init_image: str | None = None,
) -> str:
    """Seed and settings of a drawing, how long it took if known, and a link that draws it again.

    Beside the seed is a button to keep it (STATUS_CLICKS): see `with_kept_seed`. `model`,
    `init_image`: as `link_to` has them.
    """
    first, last = request.seeds[0], request.seeds[-1]
    seeds = (strings.ONE_SEED if first == last else strings.SEEDS).format(first=first, last=last)
    parts = [
        seeds + KEEP_SEED,
        *start_in_words(request, init_image),
        strings.ONE_STEP_DONE
        if request.steps == 1
        else strings.STEPS_DONE.format(steps=request.steps),
        *([] if seconds is None else [strings.SECONDS.format(seconds=seconds)]),
        f'<a href="{html.escape(link_to(request, model, init_image))}" target="_blank" '
        f'data-copied="{strings.LINK_COPIED}">{strings.LINK}</a>',
    ]
    return f'<p role="status">{" · ".join(parts)}</p>'


def with_kept_seed(told: str) -> str:
    """A `summary` where its seed is kept already."""
    return told.replace(KEEP_SEED, SEED_KEPT)


def start_in_words(request: Request, init_image: str | None = None) -> list[str]:
    """What else than the seed's noise and the model as it is. `init_image`: as `link_to` has it."""
    told = []
    if request.variation_strength:
        first, last = request.variation_seeds[0], request.variation_seeds[-1]
        said = strings.ONE_VARIATION if first == last else strings.VARIATIONS
        told.append(said.format(first=first, last=last, strength=request.variation_strength))
    if init_image_digest(request, init_image):
        told.append(strings.FROM_PICTURE.format(strength=request.strength))
    if request.lora_scale != Request.lora_scale:
        told.append(strings.AT_LORA_SCALE.format(scale=request.lora_scale))
    if request.guidance_stop < 1:
        told.append(strings.GUIDED_UP_TO.format(share=request.guidance_stop))
    if request.cache_interval > 1:
        told.append(strings.WHOLE_EVERY.format(steps=request.cache_interval))
    return told


def tokens_read(count: int, limit: int, unread: str) -> str:
    """HTML: how much of a prompt the model reads; `unread`: the words beyond its limit."""
    if unread:
        return note(strings.TOKENS_UNREAD.format(unread=unread), problem=True)
    return f"<p>{strings.TOKENS.format(count=count, limit=limit)}</p>"
