"""Learning curves and training diagnostics of one or several runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pixelcontrast.report.chart import Chart, Series, Style, line_chart, smoothed, thinned
from pixelcontrast.report.groups import COLOURS, Group
from pixelcontrast.report.run import Line, Run, number

_STATS: dict[str, tuple[str, str]] = {
    "anchors": (
        "Anchor pixels per step",
        "How many pixels the contrast starts from. Near zero it does nothing: labels too few, "
        "crops too small, or the least number of pixels per class too high.",
    ),
    "anchor_classes": (
        "Classes among the anchors",
        "With a single class there is nothing to push away from. The closer to the number of "
        "classes, the better the rare ones are served.",
    ),
    "hard_share": (
        "Share of hard anchors",
        "Anchors the network still gets wrong. It should fall as training goes on; at zero the "
        "contrast only sees easy pixels.",
    ),
    "positive_similarity": (
        "Similarity within a class",
        "Mean cosine of two anchors of one class. It should rise towards 1.",
    ),
    "negative_similarity": (
        "Similarity between classes",
        "Mean cosine of two anchors of different classes. It should fall towards 0 or below; the "
        "gap to the similarity within a class is what the contrast achieves.",
    ),
}
_SIMILARITIES = {"positive_similarity": "within a class", "negative_similarity": "between classes"}
_OTHER_STAT = "Logged by the method at each step."


def learning_curves(groups: Sequence[Group]) -> list[Chart]:
    """Validation mIoU, losses, learning rate and speed."""
    speed = _trained(groups, "images_per_second", "Training images per second", "", zero=True)
    charts = [_validation(groups), *_losses(groups), _rate(groups), speed]
    return [chart for chart in charts if chart is not None]


def diagnostic_curves(groups: Sequence[Group]) -> list[Chart]:
    """One chart for each logged statistic, with a sentence on how to read it."""
    names = _keys(groups, "stat/")
    order = list(_STATS)
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    charts: list[Chart | None] = []
    if sum(len(group.runs) for group in groups) == 1 and set(_SIMILARITIES) <= set(names):
        names = [name for name in names if name not in _SIMILARITIES]
        charts.append(_similarities(groups[0].runs[0]))
    for name in names:
        title, note = _STATS.get(name, (name.replace("_", " ").replace("/", ": "), _OTHER_STAT))
        zero = name in ("anchors", "anchor_classes")
        charts.append(_trained(groups, f"stat/{name}", title, note, zero=zero))
    return [chart for chart in charts if chart is not None]


def points_of(lines: Iterable[Line], key: str) -> list[tuple[float, float]]:
    """(step, value) of the lines that have a finite value."""
    found = ((number(line.get("step")), number(line.get(key))) for line in lines)
    return [(step, value) for step, value in found if step is not None and value is not None]


def _validation(groups: Sequence[Group]) -> Chart | None:
    series = []
    single = sum(len(group.runs) for group in groups) == 1
    for place, group, run in _runs(groups):
        keys = [key for key in ("miou", "miou_ema") if points_of(run.val, key)]
        for key in keys:
            average = key == "miou_ema"
            label = group.run_label(run)
            if single:
                label = "averaged weights" if average else "trained weights"
            elif average:
                label += ", averaged weights"
            points = points_of(run.val, key)
            best = max(points, key=lambda point: point[1])
            series.append(
                Series(
                    label,
                    points,
                    "var(--s1)" if single and average else group.colour,
                    "dashed" if average and not single else "pale" if place else "line",
                    mark=best if len(points) > 1 else None,
                )
            )
    return line_chart(
        "Validation mean IoU, %",
        series,
        y_format=lambda value: f"{100 * value:g}",
        note="Rings mark the best step of each line. Higher is better.",
    )


def _losses(groups: Sequence[Group]) -> list[Chart | None]:
    terms = _keys(groups, "loss/")
    if sum(len(group.runs) for group in groups) > 1:
        charts = [_trained(groups, "loss", "Training loss", "The sum of all terms, smoothed.")]
        if len(terms) > 1:
            charts += [_trained(groups, f"loss/{t}", f"Loss term: {t}", "") for t in terms]
        return charts
    run = groups[0].runs[0]
    shown = [("total", "loss"), *((term, f"loss/{term}") for term in terms)]
    if len(terms) == 1:
        shown = shown[:1]
    series = []
    for i, (label, key) in enumerate(shown):
        points = points_of(run.train, key)
        colour = f"var(--s{i % COLOURS})"
        series.append(Series(label, thinned(points), colour, "raw"))
        series.append(Series(label, thinned(smoothed(points)), colour))
    note = "Smoothed; the pale lines are the logged values. What is minimised is the total."
    return [line_chart("Training loss", series, note=note)]


def _similarities(run: Run) -> Chart | None:
    series = [
        Series(label, thinned(smoothed(points_of(run.train, f"stat/{name}"))), f"var(--s{i})")
        for i, (name, label) in enumerate(_SIMILARITIES.items())
    ]
    note = (
        "Mean cosine of two anchors. The upper line should rise towards 1, the lower one fall "
        "towards 0 or below; the gap between them is what the contrast achieves."
    )
    return line_chart("Similarity of pixel pairs", series, note=note)


def _rate(groups: Sequence[Group]) -> Chart | None:
    return _lines(groups, "lr", "Learning rate", "", lambda points: thinned(points))


def _trained(
    groups: Sequence[Group], key: str, title: str, note: str, *, zero: bool = False
) -> Chart | None:
    return _lines(groups, key, title, note, lambda points: thinned(smoothed(points)), zero=zero)


def _lines(
    groups: Sequence[Group],
    key: str,
    title: str,
    note: str,
    change: Callable[[list[tuple[float, float]]], list[tuple[float, float]]],
    *,
    zero: bool = False,
) -> Chart | None:
    """One line a run; runs of a group share its colour, all but the first are pale."""
    series = []
    for place, group, run in _runs(groups):
        points = change(points_of(run.train, key))
        style: Style = "pale" if place else "line"
        series.append(Series(group.run_label(run), points, group.colour, style))
    return line_chart(title, series, note=note, from_zero=zero)


def _runs(groups: Sequence[Group]) -> list[tuple[int, Group, Run]]:
    """Every run with its place in its group."""
    return [(place, group, run) for group in groups for place, run in enumerate(group.runs)]


def _keys(groups: Sequence[Group], prefix: str) -> list[str]:
    """Names after `prefix` in any training line, in order of appearance."""
    names: dict[str, None] = {}
    for _, _, run in _runs(groups):
        for line in run.train:
            names.update(dict.fromkeys(key for key in line if key.startswith(prefix)))
    return [name.removeprefix(prefix) for name in names]
