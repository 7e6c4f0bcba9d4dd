"""The table of a model's scores beside its base's, and the sentences and drawing of their scale."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from core.chart import svg_text
from core.printable import printable
from webapp.ui import strings
from webapp.ui.messages import MAX_NAME
from webapp.ui.run_scores import interval, number, share, text

CONFIDENCE = 0.95  # of the intervals in run.json
WIDTH, HEIGHT, LEFT, RIGHT, MIDDLE = 360, 52, 4, 356, 26  # of the scale, its line in the middle
MAX_METRICS = 40  # that are shown
OWN_ROWS = {  # keys of metrics with rows of their own
    "style", "distances.kid", "distances.cmmd", "fid", "memorisation", "binding", "colours_seen",
    "judges.csd.style", "judges.csd.distances.kid", "judges.dinov2.distances.kid",
    "judges.dinov2.frechet_distance", "judges.sscd", "judges.likeness.clip_i",
    "judges.likeness.dino",
}  # fmt: skip
Row = tuple[str, str, str, str]  # HTML: measure, base, model, difference
SHARES = (  # label, and where the number of images is
    (strings.BINDING, "binding", "right"),
    (strings.COLOURS_SEEN, "colours_seen", "right"),
    (strings.COPIES, "memorisation", "copies"),
    (strings.SSCD_COPIES, "judges", "sscd", "above"),
)


def base_of(entry: dict) -> str:
    """The base's name, where one was measured."""
    return printable(text(entry, "comparison", "base"), MAX_NAME)


def table(label: str, entry: dict) -> str:
    """HTML. Without a base, its column and the difference are left out."""
    base = base_of(entry)
    heads = ["", base, strings.MODEL_COLUMN, strings.DIFFERENCE]
    shown = range(4) if base else (0, 2)
    head = "".join(f'<th scope="col">{escape(heads[i])}</th>' for i in shown if i)
    lines = [
        f'<th scope="row">{row[0]}</th>' + "".join(f"<td>{row[i]}</td>" for i in shown if i)
        for row in _rows(entry)
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
    yield _mean(strings.CLIP_SCORE, entry, ("clip_score",), ("comparison",))
    for label, path, compared in (
        (strings.KEEPING_SCORE, ("keeping", "clip_score"), ("comparison", "keeping")),
        (strings.STYLE, ("style",), ("comparison", "style")),
        (strings.CSD_STYLE, ("judges", "csd", "style"), ()),
    ):
        if number(entry, *path) is not None:
            yield _mean(label, entry, path, compared)
    yield from _subject_likeness(entry)
    yield from _distances(entry)
    for label, *hits in SHARES:
        if share(entry, *hits):
            yield label, _share(entry.get("base"), *hits), _share(entry, *hits), ""
    yield from _other_metrics(entry)


def _other_metrics(entry: dict) -> Iterator[Row]:
    """Metrics without a row of their own above, as metrics.py names and prints them."""
    printed = entry.get("table")
    for key in list(printed if isinstance(printed, dict) else ())[:MAX_METRICS]:
        name, value = text(entry, "table", key, "name"), text(entry, "table", key, "text")
        if key not in OWN_ROWS and name and value:
            base = text(entry, "base", "table", key, "text")
            label, theirs, ours = (escape(printable(t, MAX_NAME)) for t in (name, base, value))
            yield label, theirs, ours, ""


def _subject_likeness(entry: dict) -> Iterator[Row]:
    for name, label in strings.LIKENESSES.items():
        path = "judges", "likeness", name
        if number(entry, *path, "value") is not None:
            base, own = _value(entry.get("base"), *path), _value(entry, *path)
            compared = "comparison", "likeness", name
            difference = number(entry, *compared, "mean_difference")
            yield label, base, own, _difference(difference, entry, *compared)


def _distances(entry: dict) -> Iterator[Row]:
    """Between the model's images and its training images: less is nearer."""
    for path, compared, label in (
        *((("distances", kernel), ("comparison",), label)
          for kernel, label in strings.DISTANCES.items()),
        *((("judges", judge, "distances", "kid"), ("comparison", "judges", judge), label)
          for judge, label in strings.JUDGE_DISTANCES.items()),
    ):  # fmt: skip
        if number(entry, *path, "value") is not None:
            at = *compared, f"{path[-1]}_difference"
            difference = _difference(number(entry, *at, "value"), entry, *at)
            yield label, _value(entry.get("base"), *path), _value(entry, *path), difference
    for path, label in (
        (("fid",), strings.FID),
        (("judges", "dinov2", "frechet_distance"), strings.DINOV2_FRECHET),
    ):
        if number(entry, *path) is not None:
            base, own = number(entry, "base", *path), number(entry, *path)
            yield label, _number(base), _number(own), ""


def _mean(label: str, entry: dict, path: tuple[str, ...], compared: tuple[str, ...]) -> Row:
    """A mean over images; `compared`: where its difference from the base's is."""
    own = number(entry, *path)
    difference = number(entry, *compared, "mean_difference") if compared else None
    base = _number(number(entry, "base", *path))
    # metrics.py did not always write the base's own. The difference is over the prompts of which
    # both have an image, so what follows from it is close.
    if not base and own is not None and difference is not None:
        base = strings.ABOUT.format(number=_number(own - difference))
    return label, base, _number(own), _difference(difference, entry, *compared)


def _value(entry: object, *path: str) -> str:
    """A number with its interval."""
    return _number(number(entry, *path, "value")) + _interval(entry, *path)


def _number(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.2f}"


def _difference(value: float | None, entry: dict, *path: str) -> str:
    return "" if value is None else _number(value, "+") + _interval(entry, *path, sign="+")


def _interval(entry: object, *path: str, sign: str = "") -> str:
    if not (found := interval(entry, *path, "interval_95")):
        return ""
    low, high = (_number(each, sign) for each in found)
    return f" <small>{strings.RANGE.format(low=low, high=high)}</small>"


def _share(entry: object, *path: str) -> str:
    if not (found := share(entry, *path)):
        return ""
    told = strings.SHARE.format(hits=found[0], pictures=found[1])
    if not (ends := interval(entry, *path[:-1], "interval_95")):
        return told
    low, high = map(_percent, ends)
    return f"{told} <small>{strings.RANGE.format(low=low, high=high)}</small>"


def scale(entry: dict, command: str) -> str:
    """HTML: where the score lies between exchanged captions (0 %) and training images (100 %).

    `command`: measures these two, where they are not known.
    """
    score, floor, ceiling = (
        number(entry, each)
        for each in ("clip_score", "captions_exchanged", "training_pictures_score")
    )
    if score is None or floor is None:
        return strings.NO_SCALE.format(command=command)
    if ceiling is None:
        return strings.FLOOR_ONLY.format(floor=floor)
    told = strings.SCALE.format(floor=floor, ceiling=ceiling)
    if ceiling <= floor:
        return f"{told} {strings.TELLS_NOTHING}"
    base = number(entry, "base", "clip_score")
    base_share = None if base is None else (base - floor) / (ceiling - floor)
    model_share = (score - floor) / (ceiling - floor)
    return f"{told} {_stands(base_share, model_share)}</p>{_drawn(base_share, model_share)}<p>"


def _stands(base: float | None, model: float) -> str:
    told = strings.STANDS_ABOVE if model > 1 else strings.STANDS_BELOW
    if 0 < model <= 1:
        told = strings.STANDS_BETWEEN.format(share=_percent(model))
    if base is not None and 0 < base <= 1:
        told += " " + strings.BASE_BETWEEN.format(share=_percent(base))
    return told


def _percent(fraction: float) -> str:
    return strings.PERCENT.format(number=f"{100 * fraction:.0f}")


def _drawn(base: float | None, model: float) -> str:
    """SVG: a line from 0 to 100 %, the model's mark named above it, its base's below."""
    marks = [(strings.MODEL_COLUMN, model, MIDDLE - 9, "")]
    marks += [(strings.BASE, base, MIDDLE + 17, "base")] if base is not None else []
    drawn = [f'<line x1="{LEFT}" x2="{RIGHT}" y1="{MIDDLE}" y2="{MIDDLE}"/>']
    for name, at, height, kind in marks:
        x = LEFT + min(max(at, 0), 1) * (RIGHT - LEFT)
        drawn.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{MIDDLE}" r="4"/>')
        drawn.append(svg_text(x, height, _anchor(x), name))
    told = ", ".join(f"{name} {_percent(at)}" for name, at, _, _ in marks)
    label = escape(strings.SCALE_NAME.format(marks=told))
    return (
        f'<div class="plots scale"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{label}">{"".join(drawn)}</svg>'
        f"<p><span>{strings.EXCHANGED}</span><span>{strings.TRAINING}</span></p></div>"
    )


def _anchor(x: float) -> str:
    return "start" if x < LEFT + 30 else "end" if x > RIGHT - 30 else "middle"
