"""A grid of images at one seed: a row for each prompt, a column for each variant of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

import gradio as gr

from core.errors import UserError
from sampling.image import PROBLEMS, Picture
from sampling.request import Request
from sampling.variants import Variant
from webapp.comparison import Pair
from webapp.ui import strings
from webapp.ui.generate_button import GenerateButton
from webapp.ui.image_store import ImageStore
from webapp.ui.messages import note
from webapp.ui.pair_picker import PairPicker
from webapp.ui.sequential_draws import SequentialDraws, seed_or_new
from webapp.worker import Worker

MAX_PROMPTS = 6
MAX_COLUMNS = 8


class Grid:
    """Components are created in the current Blocks context."""

    def __init__(
        self, worker: Worker, pairs: PairPicker, image_store: ImageStore, examples: Sequence[str]
    ):
        self._worker, self._pairs, self._image_store = worker, pairs, image_store
        limits = getattr(worker, "limits", None)
        self._max_prompts = min(MAX_PROMPTS, limits.num_images if limits else MAX_PROMPTS)
        self._lay_out("\n".join(examples[: self._max_prompts // 2]))
        self._buttons.draw.click(
            self._draw,
            [self._prompts, self.chosen, self._seed, *pairs.inputs],
            [self._status, self._table, *self._buttons.updated],
            trigger_mode="once",
            preprocess=False,  # gradio would stumble over what is no list
            show_progress="hidden",
            api_visibility="private",
        )

    def _lay_out(self, prompts: str) -> None:
        with gr.Row(elem_id="grid_ask"):
            with gr.Column():
                self._prompts = gr.Textbox(
                    prompts,
                    label=strings.GRID_PROMPTS.format(limit=self._max_prompts),
                    lines=self._max_prompts,
                    max_lines=self._max_prompts,
                    elem_id="grid_prompts",
                )
            with gr.Column():
                names, usual = _named(columns_of(self._pairs.own))
                self.chosen = gr.CheckboxGroup(
                    names,
                    value=usual,
                    label=strings.GRID_COLUMNS.format(limit=MAX_COLUMNS),
                    elem_id="grid_columns",
                )
                self._seed = gr.Number(0, label=strings.SEED_OR_NEW, elem_id="grid_seed")
        self._buttons = GenerateButton(strings.GRID_DRAW, "grid_draw", "grid_cancel")
        self._status = gr.HTML(elem_id="grid_status", elem_classes="told")
        self._table = gr.HTML(elem_id="grid_table")

    def columns(self, name: object) -> dict:
        """The update that offers the columns of a pair, as `PairPicker.pair` has it."""
        try:
            names, usual = _named(columns_of(self._pairs.pair(name)))
        except UserError as error:
            return {self._status: note(str(error), problem=True)}
        return {self.chosen: gr.CheckboxGroup(names, value=usual), self._status: ""}

    @property
    def offered(self) -> list:
        """Outputs of `columns`."""
        return [self.chosen, self._status]

    def _draw(self, visitor: gr.Request, prompts, chosen, seed, *name) -> Iterator[dict]:
        updates = self._fill(SequentialDraws(self._worker, visitor), prompts, chosen, seed, *name)
        yield from self._buttons.until_idle(updates, self._status)

    def _fill(self, draws: SequentialDraws, prompts, chosen, seed, *name) -> Iterator[dict]:
        """The table, column by column, as updates of the page."""
        requests = self._requests(prompts, seed_or_new(seed))
        columns = _columns_among(columns_of(self._pairs.pair(*name)), chosen)
        cells: dict[tuple[int, str], str] = {}
        yield self._buttons.busy(draws)
        yield {self._table: table(requests, columns, cells)}
        for number, column in enumerate(columns, start=1):
            row = 0
            for event in draws.draw(requests, column.generator):
                if isinstance(event, Picture):
                    cells[row, column.name] = self._cell(event, column.name)
                    row += 1
                    yield {self._table: table(requests, columns, cells)}
                else:
                    place = strings.COLUMN_OF.format(
                        name=column.name, number=number, count=len(columns)
                    )
                    yield {self._status: f"<p>{escape(place)}</p>{event}"}
        yield {self._status: note(_count(requests, columns)) + draws.notices}

    def _cell(self, picture: Picture, column: str) -> str:
        if picture.problem:
            return escape(PROBLEMS[picture.problem].format(seed=picture.seed))
        address = self._image_store.address(picture.file_name, picture.save)
        name = escape(f"{picture.prompt}, {column}")
        return f'<a href="{address}" target="_blank"><img src="{address}" alt="{name}"></a>'

    def _requests(self, prompts, seed) -> list[Request]:
        """One per line. Raises UserError for none, too many, or one that cannot be drawn."""
        # All lines as one prompt first: checks their type, their length and the seed.
        Request(prompts, seed=seed, prompt_weights=False)
        lines = [line.strip() for line in prompts.splitlines() if line.strip()]
        if len(lines) > (limit := self._max_prompts):
            raise UserError(strings.TOO_MANY_PROMPTS.format(count=len(lines), limit=limit))
        return [Request(line, seed=seed) for line in lines]


def _columns_among(columns: Sequence[Variant], chosen: object) -> list[Variant]:
    ticked = chosen if isinstance(chosen, list) else ()
    columns = [column for column in columns if column.name in ticked]
    if not columns:
        raise UserError(strings.NO_COLUMN)
    if len(columns) > MAX_COLUMNS:
        raise UserError(strings.TOO_MANY_COLUMNS.format(count=len(columns), limit=MAX_COLUMNS))
    return columns


def columns_of(pair: Pair) -> list[Variant]:
    """In the order of their strength: the base, variants, the final model, stronger variants."""
    base = [Variant(strings.BASE, pair.base, 0.0)] if pair.base else []
    columns = [*base, *pair.variants, Variant(strings.FINAL, pair.model)]
    return sorted(columns, key=lambda column: column.strength)


def _named(columns: Sequence[Variant]) -> tuple[list[str], list[str]]:
    """The names of all columns, and of those that are ticked at first."""
    usual = [column.name for column in columns if column.usual]
    return [column.name for column in columns], usual[:MAX_COLUMNS]


def table(
    requests: Sequence[Request], columns: Sequence[Variant], cells: dict[tuple[int, str], str]
) -> str:
    """HTML; `cells`: what is drawn so far, by row and name of the column."""
    heads = "".join(f'<th scope="col">{escape(column.name)}</th>' for column in columns)
    rows = []
    for row, request in enumerate(requests):
        drawn = "".join(f"<td>{cells.get((row, column.name), '')}</td>" for column in columns)
        rows.append(f'<tr><th scope="row">{escape(request.prompt)}</th>{drawn}</tr>')
    return (
        f'<div role="region" aria-label="{strings.GRID_TABLE}" tabindex="0"><table>'
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _count(requests: Sequence[Request], columns: Sequence[Variant]) -> str:
    first, pictures = requests[0], len(requests) * len(columns)
    return strings.GRID_DRAWN.format(seed=first.seed, steps=first.steps, pictures=pictures)
