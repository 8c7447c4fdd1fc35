import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelcontrast.report.chart import (
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    Series,
    line_chart,
    smoothed,
    thinned,
    ticks,
)

finite = st.floats(-1e12, 1e12, allow_nan=False)


@given(st.lists(st.tuples(st.integers(0, 10**7), finite), min_size=1, max_size=50))
def test_every_drawing_stays_inside_the_frame(points):
    points = [(float(x), y) for x, y in sorted(points, key=lambda point: point[0])]
    chart = line_chart("loss", [Series("a", points, "red", mark=points[0])])
    root = ET.fromstring(str(chart.svg))
    for element in root.iter():
        for name, low, high in (
            ("x", 0, WIDTH),
            ("cx", 0, WIDTH),
            ("y", 0, HEIGHT),
            ("cy", 0, HEIGHT),
        ):
            if name in element.attrib:
                assert low <= float(element.attrib[name]) <= high
    line = root.find("path[@class='line']")
    if line is not None:
        numbers = [float(n) for n in re.findall(r"-?[\d.]+", line.attrib["d"])]
        assert all(math.isfinite(n) and -1 <= n <= WIDTH for n in numbers)


@given(finite, finite)
def test_ticks_are_few_round_and_inside(low, high):
    low, high = sorted((low, high))
    found = ticks(low, high, 5)
    assert 1 <= len(found) <= 12
    assert found == sorted(found)
    slack = 1e-6 * max(abs(low), abs(high), 1e-9)
    assert all(low - slack <= tick <= high + slack for tick in found)


def test_a_title_is_escaped():
    chart = line_chart("<b>", [Series("a", [(0, 1), (1, 2)], '"/><script>')])
    assert "<b>" not in chart.svg
    assert "<script>" not in chart.svg


def test_nothing_to_draw():
    assert line_chart("loss", [Series("a", [], "red")]) is None
    assert line_chart("loss", []) is None


def test_one_point_is_a_dot():
    assert "<circle" in line_chart("loss", [Series("a", [(3.0, 1.0)], "red")]).svg


def test_raw_values_stay_out_of_the_legend_and_behind():
    line, raw = Series("a", [(0, 1), (1, 2)], "red"), Series("a", [(0, 1), (1, 9)], "red", "raw")
    chart = line_chart("loss", [line, raw])
    assert chart.legend == (line,)
    assert chart.svg.index('class="raw"') < chart.svg.index('class="line"')


def tick_values(chart):
    labels = re.findall(r'text-anchor="end">([^<]*)<', str(chart.svg))
    return [float(label) for label in labels if label != "step"]


def test_noise_does_not_fill_the_frame():
    noisy = [(i, 31 + 0.01 * (i % 2)) for i in range(20)]
    values = tick_values(line_chart("speed", [Series("a", noisy, "red")]))
    assert max(values) - min(values) > 1
    assert 0 in tick_values(line_chart("speed", [Series("a", noisy, "red")], from_zero=True))


def test_smoothing_keeps_a_constant_and_averages_noise():
    assert smoothed([(i, 2.0) for i in range(50)]) == [(i, 2.0) for i in range(50)]
    noisy = [(i, float(i % 2)) for i in range(400)]
    assert all(abs(y - 0.5) < 0.1 for _, y in smoothed(noisy))
    assert smoothed([]) == []


def test_thinning_keeps_mean_and_range():
    points = [(float(i), float(i)) for i in range(1000)]
    thin = thinned(points, most=100)
    assert len(thin) == 100
    assert sum(y for _, y in thin) / 100 == pytest.approx(499.5)
    assert thinned(points[:50], most=100) == points[:50]
    assert thinned([]) == []


def test_a_single_point_stands_in_the_middle():
    drawn = line_chart(
        "x", [Series("a", [(7.0, 1.0)], "red"), Series("a", [(7.0, 1.0)], "red", "raw")]
    )
    assert drawn.svg.count("<circle") == 1
    assert f'cx="{(LEFT + WIDTH - RIGHT) / 2:.1f}"' in drawn.svg
    assert ">7</text>" in drawn.svg
