"""The Scores tab: verdict, table and scale of each set of prompts, images, curves and reports."""

from __future__ import annotations

import threading
from html import escape
from pathlib import Path

import gradio as gr

from core.chart import curve
from core.formatting import scorer_of
from core.printable import printable
from webapp.report_routes import reports_in
from webapp.ui import strings
from webapp.ui.messages import MAX_NAME
from webapp.ui.run_scores import RunFile, best_step, curves_of, number, scores_of, sentences
from webapp.ui.scores_table import base_of, scale, table
from webapp.ui.validation_images import validation_images

COMMAND = "<code>python metrics.py --model FOLDER --write_run</code>"
MAX_SENTENCES = 20


class ScoresTab:
    """Shows what is in the model folder when the tab is opened: metrics.py may write scores while
    the app runs. Components are created in the current Blocks context."""

    def __init__(self, run: dict, folder: Path | None, tab: gr.Tab):
        self._folder, self._run_file = folder, RunFile(run, folder)
        self._html = self._html_at_start = scores_page(run, folder)
        self._refreshing = threading.Lock()
        shown = gr.HTML(self._html, elem_id="scores", elem_classes=["text", "scores"])
        if folder:
            common = {"show_progress": "hidden", "api_visibility": "private"}
            tab.select(self._refresh, None, shown, concurrency_limit=4, **common)

    def _refresh(self) -> object:
        with self._refreshing:
            if self._run_file.refresh():
                self._html = scores_page(self._run_file.run, self._folder)
        return gr.skip() if self._html == self._html_at_start else self._html


def scores_page(run: dict, folder: Path | None = None) -> str:
    """HTML: what is in run.json, or how to measure it, and what else the model folder has."""
    nothing = f"<p>{strings.NOT_MEASURED.format(command=COMMAND)}</p>"
    return (
        (measured(run) or nothing)
        + validation_images(folder, run, _base(run))
        + _curves(folder, run)
        + _reports(folder)
    )


def measured(run: dict) -> str:
    """HTML: what metrics.py found; empty where nothing was measured."""
    return "".join(_scores(prompts, entry) for prompts, entry in scores_of(run).items())


def _base(run: dict) -> str:
    names = map(base_of, scores_of(run).values())
    return next(filter(None, names), strings.BASE)


def _scores(prompts: str, entry: dict) -> str:
    """Verdict, table and scale of one set of prompts."""
    count = number(entry, "prompts")
    shown = printable(prompts, MAX_NAME)
    title = strings.SCORES_OF.format(prompts="" if count is None else f"{count:.0f}", name=shown)
    told = "".join(f"<p>{escape(printable(one))}</p>" for one in sentences(entry, MAX_SENTENCES))
    by = strings.SCORED_BY.format(scorer=printable(scorer_of(entry.get("identity")), MAX_NAME))
    numbers = table(strings.SCORES_TABLE.format(name=shown), entry)
    return (
        f"<h2>{escape(title.strip())}</h2>{told}{numbers}"
        f"<p>{escape(by)} {scale(entry, COMMAND)}</p>"
    )


def _curves(folder: Path | None, run: dict) -> str:
    curves, best = curves_of(folder, run), best_step(run)
    drawn = [
        curve(strings.CURVE_NAMES[name], points, best if best in dict(points) else None)
        for name, points in curves.items()
    ]
    return f'<h2>{strings.CURVES}</h2><div class="plots">{"".join(drawn)}</div>' if drawn else ""


def _reports(folder: Path | None) -> str:
    links = [
        f'<a href="{each}" target="_blank" rel="noopener">{strings.REPORTS[each]}</a>'
        for each in reports_in(folder)
    ]
    return f"<h2>{strings.MORE}</h2><p>{' · '.join(links)}</p>" if links else ""
