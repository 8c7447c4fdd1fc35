import re

import pytest

from pixelcontrast.report.class_charts import HEIGHT, WIDTH, ClassSeries, small_charts


def heights(chart):
    """The vertical places of the corners of every line of a chart."""
    paths = re.findall(r'<path class="(?:line|pale)" d="M([^"]*)"', chart.svg)
    return [[float(pair.split()[1]) for pair in path.split("h")[0].split("L")] for path in paths]


def series(rows, style="line"):
    return ClassSeries("run", rows, "red", style)


def test_all_classes_share_one_scale():
    rows = [(float(step), (step * 1.0, step * 0.5)) for step in range(3)]
    panel = small_charts("Anchors", ["a", "b"], [series(rows)], note="n")
    (full,), (half,) = map(heights, panel.charts)
    assert full[0] == half[0] == HEIGHT - 3
    assert full[-1] == 3
    assert half[-1] == pytest.approx(HEIGHT / 2, abs=0.1)
    assert panel.scale == "each from 0 to 2"
    assert [chart.last for chart in panel.charts] == ["2", "1"]


def test_missing_values_are_left_out():
    rows = [(1.0, (None, 1.0)), (2.0, (None, None)), (3.0, (None, 3.0))]
    panel = small_charts("x", ["a", "b"], [series(rows)])
    assert heights(panel.charts[0]) == []
    assert panel.charts[0].last == ""
    assert len(heights(panel.charts[1])[0]) == 2


def test_runs_lie_in_one_chart_the_pale_ones_behind():
    rows = [(1.0, (1.0,)), (2.0, (2.0,))]
    panel = small_charts("x", ["a"], [series(rows), series(rows, "pale")])
    svg = panel.charts[0].svg
    assert svg.index("pale") < svg.index('class="line"')


def test_negative_values_and_single_points_stay_inside():
    panel = small_charts("x", ["a", "b"], [series([(5.0, (-2.0, 1.0))])])
    for chart in panel.charts:
        ((y,),) = heights(chart)
        assert 0 < y < HEIGHT
    assert panel.scale == "each from -2 to 1"


def test_constant_zero_and_nothing_at_all():
    assert small_charts("x", ["a"], [series([(1.0, (0.0,)), (2.0, (0.0,))])]).charts[0].last == "0"
    assert heights(small_charts("x", ["a"], [series([])]).charts[0]) == []


def test_names_are_escaped():
    svg = small_charts("<b>", ["<i>"], [series([(1.0, (1.0,))])]).charts[0].svg
    assert "<b>" not in svg
    assert "<i>" not in svg
    assert f"0 0 {WIDTH} {HEIGHT}" in svg
