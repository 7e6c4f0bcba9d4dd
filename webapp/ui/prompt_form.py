"""The prompt and the Generate button, with what the model reads and knows of the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from core.errors import UserError
from sampling.prompt import parts_of, words_of
from sampling.request import MAX_PROMPT_CHARACTERS
from webapp.ui import strings
from webapp.ui.generate_button import GenerateButton
from webapp.ui.live import LiveSwitch
from webapp.ui.messages import event_value, note, tokens_read
from webapp.ui.prompt_suggestions import CHOOSE, about_words, with_word
from webapp.ui.seed_lock import SeedLock

if TYPE_CHECKING:
    from sampling.generator import AppGenerator

HIDDEN = {"show_progress": "hidden", "api_visibility": "private"}


class PromptForm:
    """A column: prompt, token count, seed lock, Generate and Cancel, words to go on with.

    Components are created in the current Blocks context. Call `connect` once the settings exist.
    """

    def __init__(self, generator: AppGenerator, placeholder: str):
        self._generator = generator
        self._captions = generator.captions
        self.prompt = gr.Textbox(
            "",
            label=strings.PROMPT,
            placeholder=placeholder,
            lines=1,
            max_lines=4,
            autofocus=True,
            elem_id="prompt",
        )
        with gr.Row(elem_id="below_prompt"):
            self._tokens = gr.HTML(elem_id="tokens")
            self.live = LiveSwitch()
            self.seed_lock = SeedLock()
        self.buttons = GenerateButton(strings.GENERATE, "generate", "cancel")
        self._words = gr.HTML(
            about_words(self._captions, ""),
            js_on_load=CHOOSE,
            apply_default_css=False,
            elem_id="learned",
        )
        self.until_open = gr.Timer(1, active=False)  # seconds; polls until the model is open

    def connect(self, prompt_weights: gr.Checkbox, model: gr.Dropdown) -> None:
        """React to typing; `prompt_weights`: whether brackets are weights; `model`: which draws."""
        inputs = [self.prompt, prompt_weights]
        gr.on(
            [each.change for each in (*inputs, model)],  # typed or filled in
            self._describe,
            [*inputs, model],
            [self._tokens, self._words],
            trigger_mode="always_last",
            queue=False,  # a key that comes as gradio ends a stream would lose it, and the page
            **HIDDEN,
        )
        self.completed = self._words.click(self._complete, self.prompt, self.prompt, **HIDDEN)
        outputs = [self._tokens, self.until_open]
        self.until_open.tick(self._count_once_open, inputs, outputs, **HIDDEN)

    def on_load(self) -> dict:
        """The update for a page that has just been loaded."""
        return {} if self._is_open else {self.until_open: gr.Timer(active=True)}

    @property
    def _is_open(self) -> bool:
        return self._generator.ready

    def _describe(self, prompt: str, prompt_weights: bool, model: str) -> tuple[str, str]:
        known = self._captions if model == self._generator.name else None  # others know others
        return self._token_count(prompt, prompt_weights), about_words(known, prompt)

    def _complete(self, prompt: str, clicked: gr.EventData) -> object:
        """The prompt, completed with the word that was clicked."""
        return with_word(prompt, event_value(clicked, "word")) or gr.skip()

    def _token_count(self, prompt: str, prompt_weights: bool) -> str:
        """HTML: how much of the prompt is read; empty while the model is still loading."""
        if not prompt or not self._is_open:
            return ""
        if len(prompt) > MAX_PROMPT_CHARACTERS:
            told = strings.CHARACTERS.format(count=len(prompt), limit=MAX_PROMPT_CHARACTERS)
            return note(told, problem=True)
        try:
            read = words_of(parts_of(prompt)) if prompt_weights else prompt
        except UserError as error:
            return note(str(error), problem=True)
        return tokens_read(*self._generator.tokens(read), self._generator.dropped_words(read))

    def _count_once_open(self, prompt: str, prompt_weights: bool) -> dict:
        """Count what was typed while the model was loading, then stop polling."""
        if not self._is_open:
            return {self._tokens: gr.skip()}
        return {
            self._tokens: self._token_count(prompt, prompt_weights),
            self.until_open: gr.Timer(active=False),
        }
