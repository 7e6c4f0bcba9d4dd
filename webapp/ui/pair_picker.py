"""Which pair is compared: a dropdown of models, each with its base, where there may be several."""

from __future__ import annotations

import gradio as gr

from webapp.comparison import Pair, Pairs
from webapp.ui import strings
from webapp.votes import VotePair, Votes


class PairPicker:
    """Hidden while there is no pair but the app's own. Components are created in the current
    Blocks context."""

    def __init__(self, pairs: Pairs):
        self._pairs = pairs
        self.own = pairs.pair()
        self.inputs: list[gr.Dropdown] = []  # of events that compare; none where one pair is all
        if pairs.grows:
            self.inputs = [gr.Dropdown(label=strings.PAIR, elem_id="pair", visible=False)]

    @property
    def outputs(self) -> list[gr.Dropdown]:
        """Outputs of `offered`."""
        return self.inputs

    def pair(self, name: object = None) -> Pair:
        """As `Pairs.pair`, by the value of the dropdown."""
        return self._pairs.pair(name)

    def pair_of(self, model: str | None) -> Pair:
        """The pair of a model that drew an image; the app's own where it is none of the pairs'."""
        return self._pairs.pair(model if self._pairs.has(model) else None)

    def votes_on(self, drawn: VotePair | None) -> Votes:
        """The votes on the two models that drew a pair of pictures."""
        return self._pairs.votes_on(drawn.model, drawn.base) if drawn else self.own.votes

    def offered(self, name: object = None) -> dict:
        """The update that offers the pairs of now, `name` chosen if it is one of them."""
        known = self._pairs.names()
        choices = [(strings.PAIR_OF.format(model=m, base=b), m) for m, b in known.items()]
        chosen = name if isinstance(name, str) and name in known else next(iter(known), None)
        is_choice = bool(known.keys() - {self.own.model.name})
        update = gr.Dropdown(choices, value=chosen, visible=is_choice)
        return {self.inputs[0]: update} if self.inputs else {}
