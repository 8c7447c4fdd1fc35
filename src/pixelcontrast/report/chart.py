"""Line charts as inline SVG. Colours are CSS variables, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

from pixelcontrast.report.text import figure

WIDTH, HEIGHT = 520, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 18, 12, 26

Point = tuple[float, float]
Style = Literal["line", "dashed", "pale", "raw"]
_DEPTH = {"raw": 0, "pale": 1, "dashed": 2, "line": 3}


@dataclass(frozen=True, slots=True)
class Series:
    """One line."""

    name: str
    points: Sequence[Point]
    """(x, y), x ascending, all finite."""
    colour: str
    """A CSS colour."""
    style: Style = "line"
    """`pale`: another seed; `raw`: unsmoothed values behind a line, not in the legend."""
    mark: Point | None = None
    """A point that is ringed."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with its caption, ready for the page."""

    title: str
    svg: Markup
    legend: tuple[Series, ...]
    note: str = ""


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    y_format: Callable[[float], str] = figure,
    note: str = "",
    from_zero: bool = False,
    x_label: str = "step",
) -> Chart | None:
    """Lines over steps, or what `x_label` names, in one frame; None where no line has a point.

    The vertical range covers all lines but for single outliers of the raw ones, and never so
    little that noise looks like a trend: from zero, or at least a tenth of the largest value.
    """
    series = [line for line in series if line.points]
    if not series:
        return None
    solid = [line for line in series if line.style != "raw"] or series
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in solid for _, y in line.points]
    raw = sorted(y for line in series if line.style == "raw" for _, y in line.points)
    if raw:
        ys += [raw[len(raw) // 50], raw[-1 - len(raw) // 50]]
    if from_zero:
        ys.append(0.0)
    missing = 0.1 * max(map(abs, ys)) - (max(ys) - min(ys))
    if missing >= 0:
        ys += [max(ys) + (missing / 2 or 0.5), min(ys) - (missing / 2 or 0.5)]
    x_ticks, y_ticks = ticks(min(xs), max(xs), 6), ticks(min(ys), max(ys), 5)
    # A single step stands in the middle.
    x_range = (min(xs), max(xs)) if max(xs) > min(xs) else (min(xs) - 1, min(xs) + 1)
    margin = 0.04 * (max(ys) - min(ys))
    y_range = (min(min(ys) - margin, y_ticks[0]), max(max(ys) + margin, y_ticks[-1]))

    def place(point: Point) -> Point:
        x = LEFT + (WIDTH - LEFT - RIGHT) * (point[0] - x_range[0]) / (x_range[1] - x_range[0])
        share = (point[1] - y_range[0]) / (y_range[1] - y_range[0])
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(share, 0.0), 1.0))

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        *(_y_tick(place((x_range[0], tick))[1], y_format(tick)) for tick in y_ticks),
        *(
            _x_tick(place((tick, y_range[0]))[0], figure(tick))
            for tick in x_ticks
            if x_range[0] <= tick <= x_range[1]
        ),
        _axis(x_label),
        *(_line(line, place) for line in sorted(series, key=lambda line: _DEPTH[line.style])),
        "</svg>",
    ]
    # Everything above is numbers, escaped text and colours from our own tables.
    svg = Markup("".join(parts))
    return Chart(title, svg, tuple(line for line in series if line.style != "raw"), note)


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round numbers that cover `low` to `high` in about `wanted` steps."""
    span = (high - low) or abs(high) or 1.0
    raw = max(span / wanted, 1e-300)
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * 0.75)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    found = [round(i * step, 12) for i in range(first, last + 1)]
    return found or [low]


def thinned(points: Sequence[Point], most: int = 240) -> list[Point]:
    """Means of neighbouring points, so that a line has at most `most`."""
    size = math.ceil(len(points) / most) or 1
    bins = [points[i : i + size] for i in range(0, len(points), size)]
    return [
        (sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in bins
    ]


def smoothed(points: Sequence[Point], share: float = 0.05) -> list[Point]:
    """Running means over a centred window of `share` of the line, cut off at the ends."""
    reach = round(len(points) * share / 2)
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    smooth = []
    for i, (x, _) in enumerate(points):
        first, last = max(i - reach, 0), min(i + reach + 1, len(points))
        smooth.append((x, (sums[last] - sums[first]) / (last - first)))
    return smooth


def _line(line: Series, place: Callable[[Point], Point]) -> str:
    corners = [place(point) for point in line.points]
    colour = escape(line.colour)
    if len(corners) == 1:
        if line.style == "raw":  # the line it lies behind is drawn as the same point
            return ""
        ((x, y),) = corners
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>'
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners)
    drawn = f'<path class="{line.style}" d="{path}" stroke="{colour}"/>'
    if line.mark is not None:
        x, y = place(line.mark)
        drawn += f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4.5" stroke="{colour}"/>'
    return drawn


def _y_tick(y: float, label: str) -> str:
    return f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>' + _text(
        LEFT - 8, y + 4, "end", label
    )


def _x_tick(x: float, label: str) -> str:
    low = HEIGHT - BOTTOM
    return f'<path class="grid short" d="M{x:.1f} {low}v5"/>' + _text(x, low + 18, "middle", label)


def _axis(label: str) -> str:
    """The name of the horizontal axis: left of it, or at its right end if that is too narrow."""
    if len(label) <= 6:
        return _text(LEFT - 8, HEIGHT - BOTTOM + 18, "end", label)
    return _text(WIDTH - RIGHT, HEIGHT - BOTTOM - 6, "end", label)


def _text(x: float, y: float, anchor: str, label: str) -> str:
    return (
        f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(label)}</text>'
    )
