import re

from pixelcontrast.report.groups import grouped
from pixelcontrast.report.run import read_run
from pixelcontrast.report.scatter import SIZE, scatter, scatters, shown_classes

PALETTE = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]


def places(svg):
    return [tuple(map(float, pair)) for pair in re.findall(r"M([\d.]+) ([\d.]+)h0", svg)]


def test_every_point_is_drawn_inside_in_its_colour():
    points = [(0.0, 0.0), (10.0, 0.0), (0.0, 10.0), (3.0, 4.0)]
    svg = scatter(points, [0, 1, 1, 2], ["a", "b", "<c>"], PALETTE)
    assert len(places(svg)) == 4
    assert all(0 < value < SIZE for place in places(svg) for value in place)
    assert svg.count("#00c800") == 2
    assert "&lt;c&gt;" in svg
    assert "<c>" not in svg


def test_up_is_up():
    low, high = places(scatter([(0.0, 0.0), (0.0, 5.0)], [0, 1], ["a", "b"], PALETTE))
    assert high[1] < low[1]


def test_classes_are_painted_in_turns():
    labels = [0] * 16 + [1] * 16
    svg = scatter([(float(i), 0.0) for i in range(32)], labels, ["a", "b"], PALETTE)
    colours = re.findall(r'stroke="(#\w+)"', svg)
    assert colours == ["#c80000", "#00c800"] * 8


def test_names_do_not_lie_on_one_another():
    svg = scatter([(0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (9.0, 9.0)], [0, 1, 2, 0], "abc", PALETTE)
    ys = [float(y) for y in re.findall(r'class="where" x="[\d.]+" y="([\d.]+)"', svg)]
    assert len(set(ys)) == 3


def test_one_run_shows_all_pictures_several_one_each(make_run):
    one = make_run("a", features=True, pictures=0)
    two = make_run("b", method="supervised", features=True, pictures=0)
    (group,) = grouped([read_run(one)])
    assert [item.title for item in scatters([group])] == [
        "Principal components of the classifier input",
        "t-SNE of the classifier input",
        "Principal components of the embedding",
        "t-SNE of the embedding",
    ]
    groups = grouped([read_run(one), read_run(two)])
    assert [item.title for item in scatters(groups)] == [
        "PiCo: t-SNE of the classifier input",
        "Supervised: t-SNE of the classifier input",
    ]
    assert shown_classes(groups) == list(range(8))


def test_no_evaluation_no_picture(make_run):
    groups = grouped([read_run(make_run(pictures=0, splits=("val",)))])
    assert scatters(groups) == []
    assert shown_classes(groups) == []
