"""Small charts side by side, one a class, on one common scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from markupsafe import Markup, escape

from pixelcontrast.report.chart import Point, Style, smoothed, thinned
from pixelcontrast.report.text import figure

WIDTH, HEIGHT = 160, 62
MOST_POINTS = 80
"""Of a line: a small chart is not wider than this on the page."""

ClassRow: TypeAlias = tuple[float, tuple[float | None, ...]]
"""A step and one value a class."""


@dataclass(frozen=True, slots=True)
class ClassSeries:
    """What one run logged."""

    name: str
    rows: Sequence[ClassRow]
    """Steps ascending."""
    colour: str
    """A CSS colour."""
    style: Style = "line"


@dataclass(frozen=True, slots=True)
class SmallChart:
    """One class."""

    name: str
    svg: Markup
    last: str
    """The last value of the first run; empty without one."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One statistic of all classes."""

    title: str
    note: str
    scale: str
    """From where to where every chart reaches."""
    charts: tuple[SmallChart, ...]


def small_charts(
    title: str, names: Sequence[str], series: Sequence[ClassSeries], *, note: str = ""
) -> Panel:
    """One chart a class, with a line a run.

    All share the axes, from zero (or the least value below it) to the largest value, so that
    classes can be compared.
    """
    lines = [[_line_of(one.rows, c) for one in series] for c in range(len(names))]
    every = [point for row in lines for line in row for point in line]
    low = min([0.0, *(y for _, y in every)])
    high = max([y for _, y in every], default=1.0)
    high = high if high > low else low + 1
    steps = [x for x, _ in every] or [0.0]
    first, last = min(steps), max(steps)
    last = last if last > first else first + 1

    def place(point: Point) -> Point:
        x = 2 + (WIDTH - 4) * (point[0] - first) / (last - first)
        return x, 3 + (HEIGHT - 6) * (1 - (point[1] - low) / (high - low))

    charts = []
    for name, row in zip(names, lines, strict=True):
        base = place((first, max(low, 0.0)))[1]
        drawn = [f'<path class="grid" d="M0 {base:.1f}H{WIDTH}"/>']
        # Further seeds lie behind.
        for one, line in sorted(
            zip(series, row, strict=True), key=lambda pair: pair[0].style == "line"
        ):
            if line:
                path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in map(place, line))
                path += "h0" if len(line) == 1 else ""
                drawn.append(
                    f'<path class="{one.style}" d="{path}" stroke="{escape(one.colour)}"/>'
                )
        svg = (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(title)}: {escape(name)}">{"".join(drawn)}</svg>'
        )
        final = row[0][-1][1] if row and row[0] else None
        shown = "" if final is None else figure(float(f"{final:.3g}"))
        charts.append(SmallChart(name, Markup(svg), shown))
    return Panel(title, note, f"each from {figure(low)} to {_short(high)}", tuple(charts))


def _line_of(rows: Sequence[ClassRow], c: int) -> list[Point]:
    points = [(step, value) for step, row in rows if c < len(row) and (value := row[c]) is not None]
    return thinned(smoothed(points), MOST_POINTS)


def _short(value: float) -> str:
    return figure(float(f"{value:.3g}"))
