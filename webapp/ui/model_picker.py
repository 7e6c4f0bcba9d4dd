"""Which model draws: the app's own, or one that is opened when it is first wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import gradio as gr

from core.errors import UserError
from core.printable import printable
from webapp.ui import strings

if TYPE_CHECKING:
    from sampling.variants import SlotGenerator

MAX_NAME = 80  # characters of one that a sentence quotes


class ModelPicker:
    """A list to choose from, laid out where it is made; in sight where there is a choice."""

    def __init__(self, own: str, picks: Mapping[str, SlotGenerator]):
        """`own`: the name of the app's model; `picks`: others, by the names that they go by."""
        self._own, self._picks = own, {name: each for name, each in picks.items() if name != own}
        self.component = gr.Dropdown(
            [own, *self._picks],
            value=own,
            label=strings.PICK_MODEL,
            visible=bool(self._picks),
            elem_id="pick",
        )

    def filled(self, model: str) -> dict:
        """The model of a link, as an update. Raises UserError for one that is not there."""
        if model and model not in self._picks:
            raise UserError(strings.MODEL_NOT_HERE.format(model=printable(model, MAX_NAME)))
        return {self.component: model or self._own}

    def chosen(self, name: object) -> SlotGenerator | None:
        """What draws; None for the app's own. Raises UserError for a name that is not there."""
        if name == self._own:
            return None
        if not isinstance(name, str) or name not in self._picks:
            raise UserError(strings.NO_SUCH_MODEL)
        return self._picks[name]
