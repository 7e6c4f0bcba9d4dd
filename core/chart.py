"""SVG line charts of values over training steps.

Written by hand because a report must load nothing and follow the colours of its page, light or
dark, and say its values to a mouse and a screen reader. matplotlib was tried: 72 MB to install,
0.6 s to import, 12 KB a curve instead of 4, colours fixed and no titles; pygal's titles need a
script from another host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 360, 188  # of a curve's picture, in units of its text's size: 11
LEFT, RIGHT, TOP, BOTTOM = 48, 340, 20, 152  # of its plot


def figure(value: float) -> str:
    """Format with four significant digits: 0.08125, 31.42, 1e-5."""
    mantissa, _, exponent = f"{value:.4g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def label(step: int) -> str:
    return f"step {step:,}" if step else "base"


def round_ticks(low: float, high: float, min_gap: float = 0.0) -> list[float]:
    """Up to seven round tick values that enclose the range, at least `min_gap` apart."""
    if high - low <= 1e-4 * max(abs(low), abs(high)):  # a constant stands in the middle
        margin = 0.1 * abs(high) or 1.0
        low, high = low - margin, high + margin
    fifth = (high - low) / 5 * 0.999
    power = 10.0 ** math.floor(math.log10(fifth))
    apart = next(m * power for m in (1, 2, 5, 10) if m * power >= fifth)
    apart = max(apart, min_gap)
    outer = math.floor(low / apart + 1e-6), math.ceil(high / apart - 1e-6)
    return [number * apart for number in range(outer[0], outer[1] + 1)]


def tick_words(ticks: list[float]) -> list[str]:
    """Tick labels with just enough digits to differ: 0.10, 1,000 or 5e-6."""
    power, largest = math.floor(math.log10(ticks[1] - ticks[0]) + 1e-6), max(map(abs, ticks))
    if power >= -5 and 1e-3 <= largest < 1e7:
        return [f"{tick:,.{max(0, -power)}f}" for tick in ticks]
    digits = math.floor(math.log10(largest) + 1e-6) - power
    parts = [f"{tick:.{digits}e}".split("e") for tick in ticks]
    return [f"{float(m):g}e{int(e)}" if float(m) else "0" for m, e in parts]


@dataclass(frozen=True)
class Plot:
    """Coordinate system of a chart: maps steps and values to SVG units."""

    end: int  # the last step, 1 or more
    ticks: list[float]  # of the values

    def x(self, step: float) -> float:
        return LEFT + step / self.end * (RIGHT - LEFT)

    def y(self, value: float) -> float:
        """Vertical position of a value, clamped to the plot."""
        share = (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return BOTTOM - min(max(share, 0.0), 1.0) * (BOTTOM - TOP)

    def line(self, steps: np.ndarray, values: np.ndarray, kind: str) -> str:
        """An SVG path with gaps at NaN; an isolated value becomes a dot."""
        gaps = np.flatnonzero(np.isnan(values))
        path, dots = "", ""
        for piece in np.split(np.arange(len(values)), sorted({*gaps, *(gaps + 1)})):
            points = list(zip(steps[piece].tolist(), values[piece].tolist(), strict=True))
            if len(points) > 1:
                path += "M" + "L".join(f"{self.x(s):.1f} {self.y(v):.1f}" for s, v in points)
            elif points and not math.isnan(points[0][1]):
                dots += self.dot(*points[0], kind, 2)
        return (f'<path class="{kind}" d="{path}"/>\n' if path else "") + dots

    def dot(self, step: int, value: float, kind: str, radius: float) -> str:
        place = f'cx="{self.x(step):.1f}" cy="{self.y(value):.1f}" r="{radius}"'
        return (
            f'<circle class="{kind}" {place}><title>{label(step)}: {figure(value)}</title>'
            "</circle>\n"
        )

    def axes(self) -> str:
        drawn = []
        for tick, words in zip(self.ticks, tick_words(self.ticks), strict=True):
            y = round(self.y(tick), 1)
            drawn.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}"/>\n')
            drawn.append(svg_text(LEFT - 6, round(y + 3.5, 1), "end", words))
        steps = [tick for tick in round_ticks(0, self.end, min_gap=1) if tick <= self.end]
        drawn += [svg_text(self.x(step), BOTTOM + 14, "middle", f"{step:,.0f}") for step in steps]
        return "".join(drawn) + svg_text((LEFT + RIGHT) / 2, BOTTOM + 30, "middle", "steps")

    def mark(self, best: int) -> str:
        x = round(self.x(best), 1)
        anchor = "start" if x < LEFT + 40 else "end" if x > RIGHT - 40 else "middle"
        return (
            f'<line class="best" x1="{x}" x2="{x}" y1="{TOP}" y2="{BOTTOM}"/>\n'
            + svg_text(x, TOP - 7, anchor, f"best, {label(best)}")
        )  # fmt: skip


def curve(name: str, points: Sequence[tuple[int, float]], best: int | None = None) -> str:
    """A chart of two or more (step, value) points; `best`: a step to mark."""
    values = [value for _, value in points]
    plot = Plot(points[-1][0], round_ticks(min(values), max(values)))
    path = "M" + "L".join(f"{plot.x(step):.1f} {plot.y(value):.1f}" for step, value in points)
    dots = "".join(
        plot.dot(step, value, "best" if step == best else "dot", 3.5) for step, value in points
    )
    description = ", ".join(f"{figure(value)} at step {step:,}" for step, value in points)
    mark = plot.mark(best) if best is not None else ""
    return (
        f'<figure>{name}<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{name}: {description}">\n{plot.axes()}{mark}<path d="{path}"/>\n'
        f"{dots}</svg></figure>\n"
    )


def svg_text(x: float, y: float, anchor: str, words: str) -> str:
    """An SVG text element; `anchor` is "start", "middle" or "end"."""
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}">{words}</text>\n'
