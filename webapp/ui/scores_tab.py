"""What the page tells about the model's scores: its base beside it, on the scorer's own scale."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from core.chart import curve
from core.formatting import scorer_of
from core.printable import printable
from webapp.report_routes import reports_in
from webapp.ui import strings
from webapp.ui.run_scores import interval, measured, number, sentences, share, text
from webapp.ui.score_history import best_step, course_of
from webapp.ui.score_scale import scale
from webapp.ui.side_by_side import pictures_beside

COMMAND = "<code>python metrics.py --model FOLDER --write_run</code>"
CONFIDENCE = 0.95  # of the intervals in run.json
MAX_SENTENCES = 20
MAX_NAME = 80  # characters
Row = tuple[str, str, str, str]  # of what, base, model, difference: HTML


def scores_page(run: dict, folder: Path | None = None) -> str:
    """HTML: what metrics.py wrote into run.json, in words and numbers, what to do where there is
    nothing; and what the model's folder has to look at."""
    found = measured(run)
    told = "".join(_scores(prompts, entry) for prompts, entry in found.items())
    nothing = f"<p>{strings.NOT_MEASURED.format(command=COMMAND)}</p>"
    base = next((each for entry in found.values() if (each := _base(entry))), strings.BASE)
    return (
        (told or nothing)
        + pictures_beside(folder, run, base)
        + _curves(folder, run)
        + _reports(folder)
    )


def _scores(prompts: str, entry: dict) -> str:
    """The verdict in sentences, where the score stands, and the numbers behind it."""
    count = number(entry, "prompts")
    shown = printable(prompts, MAX_NAME)
    title = strings.SCORES_OF.format(prompts="" if count is None else f"{count:.0f}", name=shown)
    told = "".join(f"<p>{escape(printable(one))}</p>" for one in sentences(entry, MAX_SENTENCES))
    by = strings.SCORED_BY.format(scorer=printable(scorer_of(entry.get("identity")), MAX_NAME))
    table = _table(strings.SCORES_TABLE.format(name=shown), [*_rows(entry)], _base(entry))
    return (
        f"<h2>{escape(title.strip())}</h2>{told}{table}<p>{escape(by)} {scale(entry, COMMAND)}</p>"
    )


def _base(entry: dict) -> str:
    """The base's name, where one was measured."""
    return printable(text(entry, "comparison", "base"), MAX_NAME)


def _table(label: str, rows: list[Row], base: str) -> str:
    """Without a base, its column and the difference are left out."""
    heads = ["", base, strings.MODEL_COLUMN, strings.DIFFERENCE]
    kept = range(4) if base else (0, 2)
    head = "".join(f'<th scope="col">{escape(heads[i])}</th>' for i in kept if i)
    lines = [
        f'<th scope="row">{row[0]}</th>' + "".join(f"<td>{row[i]}</td>" for i in kept if i)
        for row in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    percent = strings.PERCENT.format(number=f"{100 * CONFIDENCE:.0f}")
    note = strings.CONFIDENCE.format(share=percent) if "<small>" in body else ""
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(label)}"><table>'
        f"<thead><tr><td><small>{note}</small></td>{head}</tr></thead><tbody>{body}</tbody></table>"
        "</div>"
    )


def _rows(entry: dict) -> Iterator[Row]:
    """What is not known of the model is left out."""
    yield _score(strings.CLIP_SCORE, entry, "comparison")
    if number(entry, "keeping", "clip_score") is not None:
        yield _score(strings.KEEPING_SCORE, entry, "comparison", "keeping")
    if number(entry, "style") is not None:
        yield _beside(strings.STYLE, entry, ("style",), ("comparison", "style"))
    for kind, label in strings.DISTANCES.items():
        if number(entry, "distances", kind, "value") is not None:
            yield _distance(kind, label, entry)
    for key, hits, label in (
        ("binding", "right", strings.BINDING),
        ("colours_seen", "right", strings.COLOURS_SEEN),
        ("memorisation", "copies", strings.COPIES),
    ):
        if share(entry, key, hits):
            yield label, _share(entry.get("base"), key, hits), _share(entry, key, hits), ""


def _score(label: str, entry: dict, *compared: str) -> Row:
    """A CLIP score; `compared`: where the difference to the base's stands."""
    return _beside(label, entry, (*compared[1:], "clip_score"), compared)


def _beside(label: str, entry: dict, at: tuple[str, ...], compared: tuple[str, ...]) -> Row:
    own, difference = number(entry, *at), number(entry, *compared, "mean_difference")
    base = _number(number(entry, "base", *at))
    # metrics.py did not always write the base's own. The difference is over the prompts of which
    # both have a picture, so what follows from it is near.
    if not base and own is not None and difference is not None:
        base = strings.ABOUT.format(number=_number(own - difference))
    return label, base, _number(own), _difference(difference, entry, *compared)


def _distance(kind: str, label: str, entry: dict) -> Row:
    at, compared = ("distances", kind), ("comparison", f"{kind}_difference")
    base, own = (
        _number(number(entry, *place, "value")) + _interval(entry, *place)
        for place in (("base", *at), at)
    )
    return label, base, own, _difference(number(entry, *compared, "value"), entry, *compared)


def _number(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.2f}"


def _difference(value: float | None, entry: dict, *at: str) -> str:
    return _number(value, "+") + (_interval(entry, *at, sign="+") if value is not None else "")


def _interval(entry: dict, *at: str, sign: str = "") -> str:
    if not (found := interval(entry, *at, "interval_95")):
        return ""
    low, high = (_number(each, sign) for each in found)
    return f" <small>{strings.RANGE.format(low=low, high=high)}</small>"


def _share(entry: object, key: str, hits: str) -> str:
    if not (found := share(entry, key, hits)):
        return ""
    told = strings.SHARE.format(hits=found[0], pictures=found[1])
    return told + (_percents(entry, key) if isinstance(entry, dict) else "")


def _percents(entry: dict, key: str) -> str:
    if not (found := interval(entry, key, "interval_95")):
        return ""
    low, high = (strings.PERCENT.format(number=f"{100 * each:.0f}") for each in found)
    return f" <small>{strings.RANGE.format(low=low, high=high)}</small>"


def _curves(folder: Path | None, run: dict) -> str:
    curves, best = course_of(folder, run), best_step(run)
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
