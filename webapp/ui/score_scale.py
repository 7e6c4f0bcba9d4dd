"""Where a score stands on its scorer's own scale: in a sentence, and drawn."""

from __future__ import annotations

from html import escape

from core.chart import svg_text
from webapp.ui import strings
from webapp.ui.run_scores import number

WIDTH, HEIGHT, LEFT, RIGHT, MIDDLE = 360, 52, 4, 356, 26  # of the drawing, its line in the middle


def scale(entry: dict, command: str) -> str:
    """HTML: between exchanged captions and training pictures; `command`: what measures these."""
    score, floor, ceiling = (
        number(entry, each)
        for each in ("clip_score", "captions_exchanged", "training_pictures_score")
    )
    if floor is None:
        return strings.NO_SCALE.format(command=command)
    if ceiling is None:
        return strings.FLOOR_ONLY.format(floor=floor)
    told = strings.SCALE.format(floor=floor, ceiling=ceiling)
    if ceiling <= floor:
        return f"{told} {strings.TELLS_NOTHING}"
    base = number(entry, "base", "clip_score")
    shares = [
        None if each is None else (each - floor) / (ceiling - floor) for each in (base, score)
    ]
    return f"{told} {_stands(*shares)}</p>{_drawn(*shares)}<p>"


def _stands(base: float | None, model: float) -> str:
    told = strings.STANDS_ABOVE if model > 1 else strings.STANDS_BELOW
    if 0 < model <= 1:
        told = strings.STANDS_BETWEEN.format(share=_percent(model))
    if base is not None and 0 < base <= 1:
        told += " " + strings.BASE_BETWEEN.format(share=_percent(base))
    return told


def _percent(share: float) -> str:
    return strings.PERCENT.format(number=f"{100 * share:.0f}")


def _drawn(base: float | None, model: float) -> str:
    """SVG: a line from end to end, the model's mark named above it, its base's below."""
    marks = [(strings.MODEL_COLUMN, model, MIDDLE - 9, "")]
    marks += [(strings.BASE, base, MIDDLE + 17, "base")] if base is not None else []
    drawn = [f'<line x1="{LEFT}" x2="{RIGHT}" y1="{MIDDLE}" y2="{MIDDLE}"/>']
    for name, share, height, kind in marks:
        x = LEFT + min(max(share, 0), 1) * (RIGHT - LEFT)
        drawn.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{MIDDLE}" r="4"/>')
        drawn.append(svg_text(x, height, _anchor(x), name))
    told = ", ".join(f"{name} {_percent(share)}" for name, share, _, _ in marks)
    label = escape(strings.SCALE_NAME.format(marks=told))
    return (
        f'<div class="plots scale"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{label}">{"".join(drawn)}</svg>'
        f"<p><span>{strings.EXCHANGED}</span><span>{strings.TRAINING}</span></p></div>"
    )


def _anchor(x: float) -> str:
    return "start" if x < LEFT + 30 else "end" if x > RIGHT - 30 else "middle"
