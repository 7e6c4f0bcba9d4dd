"""What the model has learned, as the page proposes it: prompts, words, and words it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from core.errors import UserError
from core.model_captions import Captions, completed
from sampling.prompt_weights import escaped
from sampling.request import MAX_PROMPT_CHARACTERS, Request
from webapp.ui import strings
from webapp.ui.messages import note

PROPOSED = 6  # prompts
SHORT = 160  # characters of one, where there are such
OFFERED = 8  # words
NAMED = 12  # words that the model never saw
# In the component's own script: tells the page which word was chosen.
CHOOSE = """element.addEventListener("click", (event) => {
  const chosen = event.target.closest("button");
  if (chosen) trigger("click", { word: chosen.dataset.word });
});"""


def proposals(generator) -> tuple[str, ...]:
    """Prompts for a model to be tried with, at least one: those of the pictures that it brings
    along, then captions like those that it learned from."""
    known = getattr(generator, "captions", None)
    brought = [each.request.prompt for each in getattr(generator, "examples", ())]
    # What is in brackets in a caption has no more weight than the rest.
    told = [escaped(each) for each in (known.examples if known else ()) if _can_be_drawn(each)]
    short = [each for each in told if len(each) <= SHORT]
    return tuple(dict.fromkeys([*brought, *(short or told)]))[:PROPOSED] or strings.ANYTHING


def _can_be_drawn(caption: str) -> bool:
    try:
        Request(escaped(caption))
    except UserError:
        return False
    return True


def about_words(known: Captions | None, prompt: str) -> str:
    """HTML: words of a prompt that the model never saw, and learned ones to go on with."""
    if known is None or len(prompt) > MAX_PROMPT_CHARACTERS:
        return ""
    unknown = known.unknown(prompt)
    more = [*unknown[:NAMED], *(["..."] if len(unknown) > NAMED else [])]
    told = note(strings.NEVER_SEEN.format(unknown=", ".join(more))) if unknown else ""
    return told + _offered(known.completions(prompt, OFFERED))


def _offered(found: Sequence[str]) -> str:
    buttons = "".join(
        f'<button type="button" data-word="{escape(word)}">{escape(word)}</button>'
        for word in found
    )
    return f'<div role="group" aria-label="{strings.LEARNED}">{buttons}</div>' if found else ""


def with_word(prompt: object, word: object) -> str | None:
    """The prompt with a chosen word; None for what is none, as anybody can make it up."""
    if not isinstance(prompt, str) or not isinstance(word, str):
        return None
    whole = completed(prompt, word)
    return whole if len(whole) <= MAX_PROMPT_CHARACTERS else None
