"""What the page says while it is used, as HTML."""

import html
import math
import re
import time
from pathlib import Path

from core.formatting import scorer_of
from core.html import data_uri
from core.images import jpeg_of
from core.printable import printable
from sampling.request import Request
from webapp.ui import strings
from webapp.ui.permalink import link_to
from webapp.ui.run_scores import measured
from webapp.worker import Event, Queued

KEEP_SEED = f' (<button type="button" data-kept="{strings.SEED_KEPT}">{strings.KEEP_SEED}</button>)'
# In the component's own script: tells the page that such a button was pressed.
KEPT = """element.addEventListener("click", (event) => {
  const pressed = event.target.closest("button");
  if (!pressed) return;
  pressed.replaceWith(pressed.dataset.kept);
  trigger("click");
});"""


MAX_NAME = 80  # characters of what a run.json names
SMALL_SIDE = 256  # pixels; page.css shows such pictures at 336


class ProgressText:
    """How a drawing goes on, in words: what is before it, its step, and the time that is left."""

    def __init__(self):
        self._first: tuple[int, float] | None = None

    def told(self, event: Event) -> str:
        if isinstance(event, Queued):
            ahead = event.ahead
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


def head(title: str, name: str, run: dict) -> str:
    """Title, model, how it came to be and, where its run.json has them, its scores."""
    scores = [
        strings.HEAD_SCORE.format(
            score=entry["clip_score"],
            prompts=printable(prompts, MAX_NAME),
            scorer=printable(scorer_of(entry.get("identity")), MAX_NAME),
        )
        for prompts, entry in measured(run).items()
    ]
    told = [*([] if name == title else [name]), origin(run), *scores]
    return f"<h1>{html.escape(title)}</h1><p>{html.escape(' · '.join(filter(None, told)))}</p>"


def origin(run: dict) -> str:
    """From what the model was tuned, and on how many pictures, where its run.json says so."""
    base, pictures = run.get("base_model"), run.get("dataset", {}).get("pictures")
    if not isinstance(base, str) or not base or not isinstance(pictures, int):
        return ""
    told = strings.FINE_TUNED_ON_ONE if pictures == 1 else strings.FINE_TUNED
    return told.format(pictures=pictures, base=_own_name(base))


def _own_name(model: str) -> str:
    """A folder's own name: where it lies is nobody's business; a hub id as it is."""
    is_id = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", model) and not Path(model).exists()
    return model if is_id else Path(model).name


def size_class(side: int | None) -> list[str]:
    """How page.css knows a model whose pictures have few pixels a side."""
    return ["small"] if side and side <= SMALL_SIDE else []


def inline(images) -> str:
    """Small pictures within the page."""
    drawn = [f'<img src="{data_uri(jpeg_of(image))}" alt="">' for image in images]
    columns = math.ceil(math.sqrt(len(drawn)))
    return f'<div style="grid-template-columns: repeat({columns}, 1fr)">{"".join(drawn)}</div>'


def note(text: str, problem: bool = False) -> str:
    attributes = ' class="problem" role="alert"' if problem else ' role="status"'
    return f"<p{attributes}>{html.escape(text)}</p>"


def summary(
    request: Request, seconds: float | None = None, seed_is_new: bool = False, model: str = ""
) -> str:
    """What was drawn, in how many seconds if they are known, and a link that draws it again;
    `model`: as `link_to` has it.

    A new seed gets a button, of which KEPT tells, to draw with it once more.
    """
    first, last = request.seeds[0], request.seeds[-1]
    seeds = (strings.ONE_SEED if first == last else strings.SEEDS).format(first=first, last=last)
    parts = [
        seeds + KEEP_SEED * seed_is_new,
        *_start(request),
        strings.ONE_STEP_DONE
        if request.steps == 1
        else strings.STEPS_DONE.format(steps=request.steps),
        *([] if seconds is None else [strings.SECONDS.format(seconds=seconds)]),
        f'<a href="{html.escape(link_to(request, model))}">{strings.LINK}</a>',
    ]
    return f'<p role="status">{" · ".join(parts)}</p>'


def _start(request: Request) -> list[str]:
    """What it started from, beside its seed's noise."""
    told = []
    if request.variation_strength:
        first, last = request.variation_seeds[0], request.variation_seeds[-1]
        said = strings.ONE_VARIATION if first == last else strings.VARIATIONS
        told.append(said.format(first=first, last=last, strength=request.variation_strength))
    if request.init_image:
        told.append(strings.FROM_PICTURE.format(strength=request.strength))
    return told


def tokens_read(count: int, most: int, unread: str) -> str:
    """How much of a prompt the model reads; `unread`: the words beyond that."""
    if unread:
        return note(strings.TOKENS_UNREAD.format(unread=unread), problem=True)
    return f"<p>{strings.TOKENS.format(count=count, most=most)}</p>"
