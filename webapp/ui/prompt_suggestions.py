"""Prompts and words to try, from the captions a model learned, and words it has never seen."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from core.errors import UserError
from core.model_captions import Captions, completed
from sampling.generator import AppGenerator
from sampling.prompt import escaped
from sampling.request import MAX_PROMPT_CHARACTERS, Request
from webapp.ui import strings
from webapp.ui.messages import note

MAX_PROMPTS = 6
SHORT_PROMPT = 160  # characters; longer ones only where there are no shorter
MAX_COMPLETIONS = 8  # words
MAX_UNKNOWN = 12  # words that are named
# A component's own script: a click on a word becomes a click event with that word.
CHOOSE = """element.addEventListener("click", (event) => {
  const chosen = event.target.closest("button");
  if (chosen) trigger("click", { word: chosen.dataset.word });
});"""


def proposals(generator: AppGenerator) -> tuple[str, ...]:
    """Prompts to try a model with, at least one: those of its examples, then captions like those
    that it learned."""
    known = generator.captions
    examples = [each.request.prompt for each in generator.examples]
    # Brackets in a caption are words, not weights.
    captions = [escaped(each) for each in (known.examples if known else ()) if _can_be_drawn(each)]
    short = [each for each in captions if len(each) <= SHORT_PROMPT]
    return tuple(dict.fromkeys([*examples, *(short or captions)]))[:MAX_PROMPTS] or strings.ANYTHING


def _can_be_drawn(caption: str) -> bool:
    try:
        Request(escaped(caption))
    except UserError:
        return False
    return True


def about_words(known: Captions | None, prompt: str) -> str:
    """HTML: words of a prompt that the model has never seen, and learned ones to complete it."""
    if known is None or len(prompt) > MAX_PROMPT_CHARACTERS:
        return ""
    unknown = known.unknown(prompt)
    named = [*unknown[:MAX_UNKNOWN], *(["..."] if len(unknown) > MAX_UNKNOWN else [])]
    told = note(strings.NEVER_SEEN.format(unknown=", ".join(named))) if unknown else ""
    return told + _word_buttons(known.completions(prompt, MAX_COMPLETIONS))


def _word_buttons(found: Sequence[str]) -> str:
    buttons = "".join(
        f'<button type="button" data-word="{escape(word)}">{escape(word)}</button>'
        for word in found
    )
    return f'<div role="group" aria-label="{strings.LEARNED}">{buttons}</div>' if found else ""


def with_word(prompt: object, word: object) -> str | None:
    """The prompt, completed with a word; None where either is no text, or the whole is too long."""
    if not isinstance(prompt, str) or not isinstance(word, str):
        return None
    whole = completed(prompt, word)
    return whole if len(whole) <= MAX_PROMPT_CHARACTERS else None
