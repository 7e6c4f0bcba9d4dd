"""From the Teach tab to the tabs that draw: what a run has made draws, is compared, is voted on."""

from __future__ import annotations

import gradio as gr

from core.errors import UserError
from webapp.model_registry import ModelRegistry
from webapp.ui.compare_tab import SLIDER, VOTE, CompareTab
from webapp.ui.draw_tab import DrawTab
from webapp.ui.image_gallery import HIDDEN
from webapp.ui.messages import event_value, note

DRAW, COMPARE = "draw", "compare"  # ids of their tabs
WAYS = {"compare": SLIDER, "vote": VOTE}


class TaughtModels:
    """Opens the other tabs for the newest model of a run, as the Teach tab asks for it."""

    def __init__(self, models: ModelRegistry, tabs: gr.Tabs, draw: DrawTab, compare: CompareTab):
        self._models, self._tabs, self._draw, self._compare = models, tabs, draw, compare

    def connect(self, teach: gr.HTML) -> None:
        """`teach`: the component of the Teach tab."""
        outputs = [self._tabs, *self._draw.chosen_outputs, *self._compare.chosen_outputs]
        teach.click(self._open, None, outputs, **HIDDEN)

    def _open(self, clicked: gr.EventData) -> dict:
        what, run = event_value(clicked, "open"), event_value(clicked, "run")
        try:
            model = self._models.newest(str(run))
            if what in WAYS:
                shown = self._compare.choose(model, WAYS[str(what)])
                return shown | {self._tabs: gr.Tabs(selected=COMPARE)}
            return self._draw.choose(model) | {self._tabs: gr.Tabs(selected=DRAW)}
        except UserError as error:
            told = note(str(error), problem=True)
            return {self._tabs: gr.Tabs(selected=DRAW), self._draw.status: told}
