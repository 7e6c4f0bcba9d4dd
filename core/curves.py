"""Charts of what was logged along a run: one curve, or those of several runs in one plot.

A curve of many values is reduced to what can be distinguished, and a noisy one is drawn faintly
under its running mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from core.chart import HEIGHT, WIDTH, Plot, figure, round_ticks
from core.html import template

PLACES = 300  # along a curve: more cannot be distinguished
MANY = 100  # points from which on outliers (1 %) do not decide the scale
DOTTED = 24  # points: with more, only the line is drawn
MAX_CURVES = 3  # in one plot: as many dashes and marks as can be told apart
CHART = template("core/templates/chart.html")


@dataclass(frozen=True)
class Curve:
    """Values over steps, in their order: NaN where one is non-finite."""

    steps: np.ndarray  # int N
    values: np.ndarray  # float N

    @classmethod
    def of(cls, records: Iterable[dict], name: str) -> Curve:
        """What records of a log hold under `name`."""
        found = [(each["step"], each[name]) for each in records if name in each]
        numbers = [v if type(v) in (int, float) and abs(v) < 1e300 else math.nan for _, v in found]
        return cls(np.array([step for step, _ in found], int), np.array(numbers, float))

    @property
    def known(self) -> list[tuple[int, float]]:
        """Steps and finite values."""
        finite = np.isfinite(self.values)
        return list(zip(self.steps[finite].tolist(), self.values[finite].tolist(), strict=True))

    def scale(self, noisy: bool) -> tuple[float, float]:
        """The least and the largest value to be shown, of a curve with finite ones."""
        numbers = self.values[np.isfinite(self.values)]
        if noisy and len(numbers) >= MANY:
            numbers = np.quantile(numbers, [0.01, 0.99])
        return float(numbers.min()), float(numbers.max())

    def outline(self) -> Curve:
        """Reduced to at most two points per place: its minimum and its maximum there."""
        if len(self.values) <= 2 * PLACES:
            return self
        chosen: list[int] = []
        for place in np.array_split(np.arange(len(self.values)), PLACES):
            known = place[np.isfinite(self.values[place])]
            ends = (known[self.values[known].argmin()], known[self.values[known].argmax()]) if len(
                known) else (place[0],)  # fmt: skip
            chosen += sorted(set(ends))
        return Curve(self.steps[chosen], self.values[chosen])

    def running_mean(self, low: float, high: float) -> Curve:
        """At each place, over a window of about a tenth of the run. Values far outside of `low` to
        `high` count as less far, so that no outlier decides the mean."""
        values = np.clip(self.values, 2 * low - high, 2 * high - low)
        places = np.array_split(np.arange(len(values)), min(len(values), PLACES))
        known = [place[np.isfinite(values[place])] for place in places]
        counts = np.array([len(k) for k in known], float)
        sums = np.array([values[k].sum() for k in known])
        window = np.hanning(2 * (len(places) // 10) + 3)[1:-1]  # never wider than the curve
        means = np.convolve(sums, window, "same") / np.maximum(
            np.convolve(counts, window, "same"), 1e-9
        )
        middles = np.array([self.steps[place].mean() for place in places])
        return Curve(middles, np.where(counts > 0, means, math.nan))

    @property
    def ends(self) -> str:
        """The first and last finite value, in words."""
        known = np.flatnonzero(np.isfinite(self.values))
        ends = dict.fromkeys((known[0], known[-1]))
        return ", ".join(
            f"{figure(self.values[i])} at step {self.steps[i]:,.0f}" for i in ends
        )  # fmt: skip


def chart(
    name: str, title: str, curve: Curve, end: int, best: int | None = None,
    noisy: bool = False, zero: bool = False,
) -> Markup:  # fmt: skip
    """A chart of a curve over `end` steps; empty without finite values.

    A `noisy` curve is drawn faintly under its running mean. With `zero`, the scale includes 0.
    `best`: a step to mark.
    """
    known = curve.known
    if not known:
        return Markup()
    low, high = curve.scale(noisy)
    plot = Plot(max(end, 1), round_ticks(min(low, 0.0) if zero else low, high))
    main = curve.running_mean(low, high) if noisy else curve.outline()
    drawn = _line(plot, curve.outline(), "raw") if noisy else ""
    drawn += _line(plot, main, "mean")
    if best is not None and best <= plot.end:
        drawn = plot.mark(best) + drawn
    if not noisy and len(curve.steps) <= DOTTED:
        drawn += "".join(plot.dot(*point, "dot", 2) for point in known)
    if not noisy:
        drawn += "".join(plot.dot(*p, "best", 3.5) for p in known if p[0] == best)
    words, peak = "running mean " * noisy + main.ends, max(value for _, value in known)
    if peak > max(high, plot.ticks[-1]):
        words += f"; peaks of up to {figure(peak)} are cut off"
    return _figure(name, title, words, plot.axes() + drawn)


def charts_together(
    name: str, title: str, curves: Sequence[tuple[str, Curve]], noisy: bool = False
) -> Markup:
    """The curves of several runs, by their names, in one plot; empty without finite values.

    They differ in their dashes and in the mark at their end, whatever the colours.
    """
    drawn, told = [], []
    found = [(place, each) for place, each in enumerate(curves[:MAX_CURVES]) if each[1].known]
    if not found:
        return Markup()
    scales = [curve.scale(noisy) for _, (_, curve) in found]
    low, high = min(low for low, _ in scales), max(high for _, high in scales)
    plot = Plot(
        max(1, *(int(curve.steps.max()) for _, (_, curve) in found)), round_ticks(low, high)
    )
    for (place, (run, curve)), (low, high) in zip(found, scales, strict=True):
        main = curve.running_mean(low, high) if noisy else curve.outline()
        step, value = main.known[-1]
        kind = f"run-{place}"
        drawn.append(_line(plot, main, kind) + end_mark(plot.x(step), plot.y(value), place))
        told.append(f"{run}: {'running mean ' * noisy}{main.ends}")
    return _figure(name, title, "; ".join(told), plot.axes() + "".join(drawn))


def end_mark(x: float, y: float, place: int) -> str:
    """The mark of a run: a disk, a square or a triangle."""
    shapes = (
        f'<circle class="run-{place}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>\n',
        f'<path class="run-{place} mark" d="M{x - 4:.1f} {y - 4:.1f}h8v8h-8z"/>\n',
        f'<path class="run-{place} mark" d="M{x:.1f} {y - 5:.1f}l5 9h-10z"/>\n',
    )
    return shapes[place]


def _line(plot: Plot, curve: Curve, kind: str) -> str:
    return plot.line(curve.steps, curve.values, kind)


def _figure(name: str, title: str, words: str, drawn: str) -> Markup:
    return Markup(
        CHART.render(
            name=name, title=title, words=words, width=WIDTH, height=HEIGHT, drawn=Markup(drawn)
        )
    )
