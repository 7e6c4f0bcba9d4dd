"""Whether the next drawing has a new seed, and the variation of a seed that is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import NamedTuple

import gradio as gr

from sampling.request import Request
from webapp.ui import strings

VARIATION = ("variation_seed", "variation_strength")
HIDDEN = {"show_progress": "hidden", "api_visibility": "private"}
SHOW_KEPT = """(newSeed, seed) => newSeed || seed === null ? ""
  : `<p>${WORDS.replace("{seed}", Number(seed))}</p>`"""
# A new seed has no variation: the one before was of another picture.
END_WITH_SEED = "(newSeed, variation) => newSeed ? {} : variation"
SHOW_VARIATION = """const shown = element.querySelector("p");
function show() {
  const { variation_seed, variation_strength } = props.value ?? {};
  shown.hidden = !variation_strength;
  shown.querySelector("span").textContent = shown.dataset.words
    .replace("{seed}", variation_seed).replace("{strength}", variation_strength);
}
element.addEventListener("click", (event) => {
  if (event.target.closest("button")) trigger("click");
});
watch("value", show);
show();"""


class Kept(NamedTuple):
    """What a browser sent of the noise that the next drawing starts from."""

    seed: object
    variation: object  # VARIATION by name, empty for none
    new_seed: object

    def is_noise_of(self, seed: int, variation: Mapping | None) -> bool:
        """Whether this noise is kept; `variation`: None for any."""
        if self.new_seed is True or self.seed != seed:
            return False
        return variation is None or variation == (self.variation or {})


class SeedLock:
    """A tick for new seeds; beside it the seed that is kept, below it its variation, with a button
    that ends it.

    Components are created in the current Blocks context, a row. Call `connect` once there is a
    field for the seed.
    """

    def __init__(self) -> None:
        self._shown = gr.HTML(elem_id="kept_seed", apply_default_css=False)
        self.new_seed = gr.Checkbox(
            True, label=strings.NEW_SEED, container=False, elem_id="new_seed"
        )
        self.variation = gr.HTML(
            {},
            html_template=f'<p data-words="{escape(strings.VARIATION_KEPT)}" hidden><span></span> '
            f'<button type="button">{strings.VARIATION_END}</button></p>',
            js_on_load=SHOW_VARIATION,
            apply_default_css=False,
            elem_id="variation",
        )

    def connect(self, seed: gr.Number) -> None:
        """Show the seed while it is kept; typing one means wanting it, and no variation of it."""
        self._seed, both = seed, [self.new_seed, seed]
        show = SHOW_KEPT.replace("WORDS", json.dumps(strings.SEED_IS_KEPT))
        gr.on([each.change for each in both], None, both, self._shown, js=show, **HIDDEN)
        ended = [self.new_seed, self.variation]
        self.new_seed.change(None, ended, self.variation, js=END_WITH_SEED, **HIDDEN)
        seed.input(None, None, ended, js="() => [false, {}]", **HIDDEN)
        self.variation.click(None, None, self.variation, js="() => ({})", **HIDDEN)

    @property
    def inputs(self) -> list:
        """What a `Kept` is made of."""
        return [self._seed, self.variation, self.new_seed]

    def read(self, sent: object) -> dict:
        """Fields of Request of the variation that a browser sent."""
        given = sent if isinstance(sent, dict) else {}
        return {name: given[name] for name in VARIATION if name in given}

    def filled(self, variation: Mapping) -> dict:
        """The update by which the seed, whose field is filled in elsewhere, is kept."""
        return {self.variation: gr.HTML(dict(variation)), self.new_seed: False}

    def kept(self, seed: int, variation: Mapping | None) -> dict:
        """The update that keeps this noise; `variation`: None leaves it as it is."""
        told = {} if variation is None else {self.variation: gr.HTML(dict(variation))}
        return {self._seed: seed, self.new_seed: False} | told


def variation_of(request: Request) -> dict:
    """The fields of a request's variation; empty where it has none."""
    return {name: request.start[name] for name in VARIATION if name in request.start}
