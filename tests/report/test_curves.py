import json

from pixelcontrast.report.curves import (
    class_curves,
    diagnostic_curves,
    learning_curves,
    points_of,
    rows_of,
)
from pixelcontrast.report.groups import grouped
from pixelcontrast.report.run import read_run


def groups_of(*folders):
    return grouped([read_run(folder) for folder in folders])


def titles(charts):
    return [chart.title for chart in charts]


def test_one_run(make_run):
    groups = groups_of(make_run(ema=True, pictures=0))
    charts = learning_curves(groups)
    assert titles(charts) == [
        "Validation mean IoU, %",
        "Training loss",
        "Learning rate",
        "Training images per second",
    ]
    assert [line.name for line in charts[0].legend] == ["trained weights", "averaged weights"]
    assert [line.name for line in charts[1].legend] == ["total", "ce", "contrast"]
    assert titles(diagnostic_curves(groups)) == [
        "Similarity of pixel pairs",
        "Anchor pixels per step",
        "Classes among the anchors",
        "Share of hard anchors",
    ]


def test_several_runs_share_each_chart(make_run):
    groups = groups_of(
        make_run("a", seed=0, pictures=0),
        make_run("b", seed=1, pictures=0),
        make_run("c", method="supervised", pictures=0),
    )
    charts = {chart.title: chart for chart in learning_curves(groups)}
    loss = charts["Training loss"].legend
    assert [line.name for line in loss] == ["PiCo, seed 0", "PiCo, seed 1", "Supervised"]
    assert [line.style for line in loss] == ["line", "pale", "line"]
    assert loss[0].colour == loss[1].colour != loss[2].colour
    assert len(charts["Loss term: contrast"].legend) == 2


def test_the_best_step_is_ringed(make_run):
    (group,) = groups_of(make_run(pictures=0))
    line = learning_curves([group])[0].legend[0]
    assert line.mark == max(line.points, key=lambda point: point[1])


def test_an_unknown_statistic_is_drawn_all_the_same(make_run):
    folder = make_run(method="supervised", steps=20, pictures=0)
    lines = [{"kind": "train", "step": s, "stat/queue_fill/road": s / 10} for s in range(5)]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (chart,) = diagnostic_curves(groups_of(folder))
    assert chart.title == "queue fill: road"
    assert chart.note


def test_values_that_are_no_numbers_are_skipped():
    lines = [{"step": 1, "a": 2}, {"step": 2, "a": float("nan")}, {"step": 3}, {"a": 1}]
    assert points_of(lines, "a") == [(1.0, 2.0)]


def test_a_run_without_logs_has_no_curves(make_run):
    folder = make_run(steps=20, pictures=0)
    (folder / "metrics.jsonl").unlink()
    assert learning_curves(groups_of(folder)) == []
    assert diagnostic_curves(groups_of(folder)) == []


def log(folder, lines):
    text = "\n".join(json.dumps({"kind": "train", **line}) for line in lines)
    (folder / "metrics.jsonl").write_text(text)


def test_values_of_every_class_are_small_charts(make_run):
    folder = make_run(method="supervised", steps=20, pictures=0)
    rows = [
        {
            "step": s,
            "stat/anchors_per_class": [s, None, *range(6)],
            "stat/levels": [1, 2],
            "loss": 1,
        }
        for s in range(5)
    ]
    log(folder, rows)
    groups = groups_of(folder)
    anchors, levels = class_curves(groups)
    assert anchors.title == "Anchors of each class"
    assert [chart.name for chart in anchors.charts][:2] == ["sky", "building"]
    assert anchors.charts[0].last == "4"
    assert anchors.charts[1].last == ""
    assert levels.title == "levels"
    assert [chart.name for chart in levels.charts] == ["1", "2"]
    assert diagnostic_curves(groups) == []


def test_lists_that_are_no_numbers_are_missing_values():
    lines = [{"step": 1, "a": [1, None, "x", float("nan")]}, {"step": 2, "a": 3}]
    assert rows_of(lines, "a") == [(1.0, (1.0, None, None, None))]


def test_several_runs_share_the_small_charts(make_run):
    folders = [make_run("a", pictures=0), make_run("b", seed=1, pictures=0)]
    for folder in folders:
        log(folder, [{"step": s, "stat/x": [s, s]} for s in range(3)])
    (panel,) = class_curves(groups_of(*folders))
    assert panel.charts[0].svg.count("<path") == 3


def test_broken_scores_have_a_chart_only_where_there_are_any(make_run):
    folder = make_run(steps=20, pictures=0)
    title = "Share of pixels whose scores are not finite"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for share in (0.0, 0.25):
        for line in lines:
            line["stat/not_finite_share"] = share
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert (title in titles(diagnostic_curves(groups_of(folder)))) == (share > 0)
