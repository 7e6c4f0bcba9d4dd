"""What the page says, as HTML: the one place with words that change while it is used."""

import html
import math
import time
from base64 import b64encode
from io import BytesIO

from serving.page.link import link_to
from serving.request import Request
from serving.worker import Event, Waiting

TITLE = "Pocket creatures"
KEEP_SEED = ' (<button type="button">keep it</button>)'
# In the component's own script: tells the page that such a button was pressed.
KEPT = """element.addEventListener("click", (event) => {
  const pressed = event.target.closest("button");
  if (!pressed) return;
  pressed.replaceWith("kept");
  trigger("click");
});"""


class Pace:
    """How a drawing goes on, in words: what is before it, its step, and the time that is left."""

    def __init__(self):
        self._first: tuple[int, float] | None = None

    def told(self, event: Event) -> str:
        if isinstance(event, Waiting):
            return note(
                "Starting ..." if not event.ahead else f"Waiting for {event.ahead} before you."
            )
        if not event.total:
            return note("Getting ready ...")
        now = time.monotonic()
        self._first = self._first or (event.done, now)
        done, seconds = event.done - self._first[0], now - self._first[1]
        words = f"Step {event.done} of {event.total}"
        if done and seconds > 1:
            each = seconds / done
            left = math.ceil(each * (event.total - event.done))
            words += f" · {each:.1f} s a step · {left} s left"
        bar = f'<progress value="{event.done}" max="{event.total}"></progress>'
        return f"{bar}<p>{words}</p>"


def head(name: str, run: dict) -> str:
    """Title, model and, where its run.json has them, its scores."""
    scores = [
        f"CLIP score {entry['clip_score']:.1f} on {prompts} prompts"
        for prompts, entry in run.get("scores", {}).items()
        if isinstance(entry, dict) and isinstance(entry.get("clip_score"), int | float)
    ]
    return f"<h1>{TITLE}</h1><p>{html.escape(' · '.join([name, *scores]))}</p>"


def inline(images) -> str:
    """Small pictures within the page."""
    drawn = [f'<img src="{data_uri(image)}" alt="">' for image in images]
    columns = math.ceil(math.sqrt(len(drawn)))
    return f'<div style="grid-template-columns: repeat({columns}, 1fr)">{"".join(drawn)}</div>'


def data_uri(image) -> str:
    """A picture as an address that holds all of it."""
    content = BytesIO()
    image.save(content, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(content.getvalue()).decode()}"


def note(text: str, problem: bool = False) -> str:
    attributes = ' class="problem" role="alert"' if problem else ' role="status"'
    return f"<p{attributes}>{html.escape(text)}</p>"


def summary(request: Request, seconds: float | None = None, seed_is_new: bool = False) -> str:
    """What was drawn, in how many seconds if they are known, and a link that draws it again.

    A new seed gets a button, of which KEPT tells, to draw with it once more.
    """
    first, last = request.seeds[0], request.seeds[-1]
    seeds = f"Seed {first}" if first == last else f"Seeds {first} to {last}"
    parts = [
        seeds + KEEP_SEED * seed_is_new,
        f"{request.steps} steps",
        *([] if seconds is None else [f"{seconds:.1f} s"]),
        f'<a href="{html.escape(link_to(request))}">link to it</a>',
    ]
    return f'<p role="status">{" · ".join(parts)}</p>'


def tokens_read(count: int, most: int, unread: str) -> str:
    """How much of a prompt the model reads; `unread`: the words beyond that."""
    if unread:
        return note(f"Not read: “{unread}”", problem=True)
    return f"<p>{count} of {most} tokens</p>"
