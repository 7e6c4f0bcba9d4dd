"""Two pictures without names: which is better? Only after the vote it is said whose they are."""

import secrets
from collections.abc import Iterator, Sequence
from functools import partial
from html import escape

import gradio as gr
from PIL import Image

from core.errors import UserError
from sampling.image import Picture
from sampling.request import SEEDS, Request
from webapp.comparison import Variants
from webapp.ui import strings
from webapp.ui.generate_button import GenerateButton
from webapp.ui.image_store import ImageStore
from webapp.ui.messages import note
from webapp.ui.sequential_draws import SequentialDraws
from webapp.votes import CHOICES, SIDES, Tally, VotePair, preference_rate
from webapp.worker import Worker

BUTTONS = dict(zip(CHOICES, (strings.LEFT, strings.SAME, strings.RIGHT), strict=True))


class BlindVote:
    """Laid out where it is made, within a page."""

    def __init__(
        self, worker: Worker, rivals: Variants, drawings: ImageStore, examples: Sequence[str]
    ):
        """`rivals` has a base."""
        self._worker, self._rivals = worker, rivals
        self._drawings, self._examples = drawings, examples
        self._lay_out()
        hidden = {"show_progress": "hidden", "api_visibility": "private"}
        drawn = [self._status, self._pictures, *self._choices.values(), self._pair]
        gr.on(
            [self._buttons.draw.click, self._prompt.submit],
            self._draw,
            self._prompt,
            [*drawn, *self._buttons.updated],
            trigger_mode="once",
            **hidden,
        )
        for choice, button in self._choices.items():
            # The button alone says what was chosen, and the server alone knows the pair.
            button.click(
                partial(self._vote, choice),
                [self._pair, self._mine],
                [self._status, *self._choices.values(), self._mine],
                trigger_mode="once",
                **hidden,
            )

    def _lay_out(self) -> None:
        kept = f" {strings.VOTES_KEPT}" if self._rivals.votes.are_kept else ""
        gr.HTML(f"<p>{strings.VOTE_ASKED}{kept}</p>", elem_classes="told")
        with gr.Row(elem_id="vote_ask"):
            self._prompt = gr.Textbox(
                "",
                label=strings.VOTE_PROMPT,
                placeholder=self._examples[0],
                elem_id="vote_prompt",
            )
            self._buttons = GenerateButton(strings.VOTE_DRAW, "vote_draw", "vote_cancel")
        self._pictures = gr.HTML(elem_id="vote_pictures")
        with gr.Row(elem_id="vote_buttons"):
            self._choices = {
                choice: gr.Button(name, interactive=False, elem_id=f"vote_{choice}", min_width=0)
                for choice, name in BUTTONS.items()
            }
        self._status = gr.HTML(elem_id="vote_status", elem_classes="told")
        self._pair, self._mine = gr.State(), gr.State(Tally())

    def _draw(self, visitor: gr.Request, prompt) -> Iterator[dict]:
        drawing = self._new_pair(SequentialDraws(self._worker, visitor, kept=False), prompt)
        yield from self._buttons.until_idle(drawing, self._status)

    def _new_pair(self, series: SequentialDraws, prompt) -> Iterator[dict]:
        """As updates of the page; the one before cannot be voted on any more."""
        yield {
            self._pictures: "",
            self._pair: None,
            **self._choosable(False),
            **self._buttons.busy(series),
        }
        request, pictures = self._request(prompt), []
        # The base's first, on whichever side it will be: nothing in between tells.
        for number, generator in enumerate((self._rivals.base, self._worker.generator), 1):
            for event in series.draw([request], generator):
                if isinstance(event, Picture):
                    pictures.append(shown(event))
                else:
                    place = strings.PICTURE_OF_PAIR.format(number=number)
                    yield {self._status: f"<p>{place}</p>{event}"}
        model_side = secrets.choice(SIDES)
        left, right = pictures if model_side == "right" else pictures[::-1]
        yield {
            self._pictures: self._figures(left, right, request.prompt),
            self._status: note(strings.WHICH_IS_BETTER) + series.unsaid,
            self._pair: VotePair(request.prompt, request.seed, model_side),
            **self._choosable(True),
        }

    def _request(self, prompt: object) -> Request:
        """The visitor's words, or some of ours, with a new seed."""
        if isinstance(prompt, str) and not prompt.strip():
            prompt = secrets.choice(self._examples)
        return Request(prompt, seed=secrets.randbelow(SEEDS))

    def _figures(self, left: Image.Image, right: Image.Image, prompt: str) -> str:
        """HTML. Saved only now and in this order, so that no date of a file tells either."""
        figures = []
        for side, name, image in (
            (strings.LEFT, strings.LEFT_PICTURE, left),
            (strings.RIGHT, strings.RIGHT_PICTURE, right),
        ):
            address = self._drawings.address("picture.png", image.save)
            figures.append(
                f'<figure><img src="{address}" alt="{name}">'
                f"<figcaption>{side}</figcaption></figure>"
            )
        return f'<div class="pair">{"".join(figures)}</div><p>{escape(prompt)}</p>'

    def _choosable(self, now: bool) -> dict:
        return {button: gr.Button(interactive=now) for button in self._choices.values()}

    def _vote(self, choice: str, pair: VotePair | None, mine: Tally) -> dict:
        """Count the vote, name the pictures, and say how the votes stand."""
        try:
            outcome = self._rivals.votes.cast(pair, choice)
        except UserError as error:
            return {self._status: note(str(error), problem=True)}
        mine = mine.plus(outcome)
        model, base = self._worker.generator.name, self._rivals.base.name
        left, right = (model, base) if pair.model_side == "left" else (base, model)
        lines = [
            strings.CHOSEN.format(
                choice=BUTTONS[choice].lower(), left=left, right=right, seed=pair.seed
            ),
            standing(strings.YOUR_VOTES.format(model=model), mine),
            standing(strings.ALL_VOTES.format(model=model), self._rivals.votes.tally),
            strings.TIES_LEFT_OUT.format(half=percent(0.5)),
        ]
        return {
            self._status: "".join(map(note, lines)),
            self._mine: mine,
            **self._choosable(False),
        }


def shown(picture: Picture) -> Image.Image:
    """Its pixels and nothing else. Raises UserError for a picture that must not be shown."""
    picture.check()
    image = picture.image
    return Image.frombytes(image.mode, image.size, image.tobytes())


def standing(whose: str, tally: Tally) -> str:
    """How votes stand, in words."""
    rate = preference_rate(tally)
    if rate is None:
        return strings.NONE_DECIDES.format(whose=whose, ties=tally.ties)
    share, low, high = map(percent, rate)
    return strings.STANDING.format(
        whose=whose, wins=tally.wins, decided=tally.wins + tally.losses, ties=tally.ties,
        share=share, confidence=percent(0.95), low=low, high=high,
    )  # fmt: skip


def percent(share: float) -> str:
    return strings.PERCENT.format(number=round(100 * share))
