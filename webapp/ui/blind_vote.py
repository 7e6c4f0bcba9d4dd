"""Blind vote: an image by the model beside one by its base, which are named after the vote."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from functools import partial
from html import escape

import gradio as gr
from PIL import Image

from core.errors import UserError
from sampling.image import Picture
from sampling.request import SEEDS, Request
from webapp.ui import strings
from webapp.ui.generate_button import GenerateButton
from webapp.ui.image_store import ImageStore
from webapp.ui.messages import note
from webapp.ui.pair_picker import PairPicker
from webapp.ui.sequential_draws import SequentialDraws
from webapp.votes import CHOICES, SIDES, Tally, VotePair, preference_rate
from webapp.worker import Worker

BUTTONS = dict(zip(CHOICES, (strings.LEFT, strings.SAME, strings.RIGHT), strict=True))


class BlindVote:
    """Components are created in the current Blocks context."""

    def __init__(
        self, worker: Worker, pairs: PairPicker, image_store: ImageStore, examples: Sequence[str]
    ):
        self._worker, self._pairs = worker, pairs
        self._image_store, self._examples = image_store, examples
        self._lay_out()
        hidden = {"show_progress": "hidden", "api_visibility": "private"}
        asked = [self._status, self._question, *self._choices.values()]
        drawn = [*asked, self._images, self._pair]
        gr.on(
            [self._buttons.draw.click, self._prompt.submit],
            self._draw,
            [self._prompt, *pairs.inputs],
            [*drawn, *self._buttons.updated],
            trigger_mode="once",
            preprocess=not pairs.inputs,  # a dropdown refuses what was deleted
            **hidden,
        )
        for choice, button in self._choices.items():
            # The choice is bound to the button, and the pair stays on the server.
            button.click(
                partial(self._vote, choice),
                [self._pair, self._own_votes],
                [*asked, self._own_votes],
                trigger_mode="once",
                **hidden,
            )

    def _lay_out(self) -> None:
        are_kept = self._pairs.own.votes.are_kept
        kept = f" {strings.VOTES_KEPT}" if are_kept else ""
        gr.HTML(f"<p>{strings.VOTE_ASKED}{kept}</p>", elem_classes="told")
        with gr.Row(elem_id="vote_ask"):
            self._prompt = gr.Textbox(
                "",
                label=strings.VOTE_PROMPT,
                placeholder=self._examples[0],
                elem_id="vote_prompt",
            )
            self._buttons = GenerateButton(strings.VOTE_DRAW, "vote_draw", "vote_cancel")
        self._images = gr.HTML(elem_id="vote_pictures")
        self._question = gr.HTML(elem_id="vote_question", elem_classes="told")
        with gr.Row(elem_id="vote_buttons"):
            self._choices = {
                choice: gr.Button(name, interactive=False, elem_id=f"vote_{choice}", min_width=0)
                for choice, name in BUTTONS.items()
            }
        self._status = gr.HTML(elem_id="vote_status", elem_classes="told")
        self._pair, self._own_votes = gr.State(), gr.State({})

    def _draw(self, visitor: gr.Request, prompt, *pair) -> Iterator[dict]:
        draws = SequentialDraws(self._worker, visitor, kept=False)
        updates = self._new_pair(draws, prompt, *pair)
        yield from self._buttons.until_idle(updates, self._status)

    def _new_pair(self, draws: SequentialDraws, prompt, *name) -> Iterator[dict]:
        """A pair, as updates of the page; the one before can no longer be voted on."""
        yield {
            self._images: "",
            self._pair: None,
            **self._choosable(False),
            **self._buttons.busy(draws),
        }
        request, images, pair = self._request(prompt), [], self._pairs.pair(*name)
        model, base = pair.model, pair.of_base
        # The base always draws first, so that the order of events does not give the sides away.
        for number, generator in enumerate((base, model), 1):
            for event in draws.draw([request], generator):
                if isinstance(event, Picture):
                    images.append(anonymous(event))
                else:
                    place = strings.PICTURE_OF_PAIR.format(number=number)
                    yield {self._status: f"<p>{place}</p>{event}"}
        model_side = secrets.choice(SIDES)
        left, right = images if model_side == "right" else images[::-1]
        yield {
            self._images: self._figures(left, right, request.prompt),
            self._status: draws.notices,
            self._pair: VotePair(
                request.prompt, request.seed, model_side, model=model.name, base=base.name
            ),
            **self._choosable(True),
        }

    def _request(self, prompt) -> Request:
        """The visitor's prompt, or one of ours where it is empty, at a random seed."""
        if isinstance(prompt, str) and not prompt.strip():
            prompt = secrets.choice(self._examples)
        return Request(prompt, seed=secrets.randbelow(SEEDS))

    def _figures(self, left: Image.Image, right: Image.Image, prompt: str) -> str:
        """HTML. Files are written now and in this order, so that their dates tell nothing."""
        figures = []
        for side, name, image in (
            (strings.LEFT, strings.LEFT_PICTURE, left),
            (strings.RIGHT, strings.RIGHT_PICTURE, right),
        ):
            address = self._image_store.address("picture.png", image.save)
            figures.append(
                f'<figure><img src="{address}" alt="{name}">'
                f"<figcaption>{side}</figcaption></figure>"
            )
        return f'<div class="pair">{"".join(figures)}</div><p>{escape(prompt)}</p>'

    def _choosable(self, now: bool) -> dict:
        question = note(strings.WHICH_IS_BETTER) if now else ""
        buttons = {button: gr.Button(interactive=now) for button in self._choices.values()}
        return {self._question: question} | buttons

    def _vote(
        self, choice: str, pair: VotePair | None, own_votes: dict[tuple[str, str], Tally]
    ) -> dict:
        """Count the vote, name the images, and tell the win rates. `own_votes`: the visitor's, by
        the names of the two models."""
        votes = self._pairs.votes_on(pair)
        try:
            outcome = votes.cast(pair, choice)
        except UserError as error:
            told = self._whose(pair) if pair and pair.choice else ""
            return {self._status: note(str(error), problem=True) + told}
        assert pair is not None  # else `cast` has refused it
        model, names = pair.model, (pair.model, pair.base)
        own = own_votes.get(names, Tally()).plus(outcome)
        lines = [
            standing(strings.YOUR_VOTES.format(model=model), own),
            standing(strings.ALL_VOTES.format(model=model), votes.tally),
            strings.TIES_LEFT_OUT.format(half=percent(0.5)),
        ]
        return {
            self._status: self._whose(pair) + "".join(map(note, lines)),
            self._own_votes: own_votes | {names: own},
            **self._choosable(False),
        }

    def _whose(self, pair: VotePair) -> str:
        """HTML: the vote on a pair, and whose its images are."""
        model, base = pair.model, pair.base
        left, right = (model, base) if pair.model_side == "left" else (base, model)
        choice = BUTTONS[str(pair.choice)].lower()
        return note(strings.CHOSEN.format(choice=choice, left=left, right=right, seed=pair.seed))


def anonymous(picture: Picture) -> Image.Image:
    """The pixels without metadata. Raises UserError for an image that must not be shown."""
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
