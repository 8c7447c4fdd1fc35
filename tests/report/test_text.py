import pytest

from pixelcontrast.report.text import duration, figure, joined, percent, points, quantity


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),  # noqa: RUF001
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "1 h"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (3 * 86400 + 7200, "3 d 2 h"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (940, "940"),
        (9999, "9,999"),
        (12_345, "12.3 k"),
        (26.7e6, "26.7 M"),
        (2e9, "2.0 G"),
    ],
)
def test_quantity(value, text):
    assert quantity(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01, "0.01"),
        (2000, "2000"),
        (20_000, "20k"),
        (160_000, "160k"),
        (2e6, "2e6"),
        (-0.5, "-0.5"),
        (1e-5, "1e-5"),
        (2.5e-4, "2.5e-4"),
    ],
)
def test_figure(value, text):
    assert figure(value) == text


def test_shares_and_differences():
    assert percent(0.61849) == "61.8"
    assert percent(None) == "–"  # noqa: RUF001
    assert points(0.0249) == "+2.5"
    assert points(-0.0249) == "−2.5"  # noqa: RUF001
    assert points(0.0001) == "±0.0"
    assert points(None) == "–"  # noqa: RUF001


def test_joined():
    assert joined(["a"]) == "a"
    assert joined(["a", "b", "c"]) == "a, b and c"
