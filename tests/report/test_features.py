import json
import math

import pytest

from pixelcontrast.report.features import feature_table, similarities
from pixelcontrast.report.groups import grouped, reference_of
from pixelcontrast.report.run import read_run


def groups_of(*folders):
    return grouped([read_run(folder) for folder in folders])


def change(folder, edit):
    path = folder / "evaluation" / "val" / "scores.json"
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def test_a_run_without_feature_scores_has_no_table(make_run):
    groups = groups_of(make_run(pictures=0))
    assert feature_table(groups, groups[0]) is None
    assert similarities(groups) == []


def test_one_row_a_layer(make_run):
    folder = make_run(features=True, pictures=0)
    groups = groups_of(folder)
    table = feature_table(groups, groups[0])
    assert table.heads == ("A", "bounds of A", "U", "U₁", "U₃", "U₅")
    assert [row.layer for row in table.rows] == ["classifier input", "embedding"]
    scores = read_run(folder).result.features[0]
    texts = [cell.text for cell in table.rows[0].cells]
    low, high = scores.alignment_bounds
    assert texts[0] == f"{scores.alignment:.3f}"
    assert texts[1] == f"{low:.2f} to {high:.2f}"
    assert texts[2] == f"{scores.uniformity:.3f}"
    assert texts[5] == f"{scores.neighbourhood[5]:.3f}"
    assert all(cell.better is None for row in table.rows for cell in row.cells)
    assert table.notes == ()


def test_a_sampled_value_shows_its_error(make_run):
    folder = make_run(features=True, pictures=0)

    def edit(values):
        for row in values["features"][0]["classes"]:
            row["error"] = 0.08

    change(folder, edit)
    groups = groups_of(folder)
    shown = feature_table(groups, groups[0]).rows[0].cells[0].text
    assert shown.endswith(f"± {0.08 / math.sqrt(8):.3f}")


def test_runs_stand_side_by_side_and_tell_what_is_better(make_run):
    twin = make_run("a", method="supervised", features=True, pictures=0)
    other = make_run("b", features=True, pictures=0)

    def edit(values):
        layer = values["features"][0]
        layer["uniformity"] *= 0.5
        for row in layer["classes"]:
            row["alignment"] *= 0.5

    change(other, edit)
    groups = groups_of(twin, other)
    table = feature_table(groups, reference_of(groups))
    assert [(row.layer, row.label) for row in table.rows] == [
        ("classifier input", "Supervised"),
        ("classifier input", "PiCo"),
        ("embedding", "Supervised"),
        ("embedding", "PiCo"),
    ]
    better = [cell.better for cell in table.rows[1].cells]
    assert better[0] is True  # A fell
    assert better[1] is None
    assert better[2] is False  # U fell
    assert better[3] is None  # the same
    assert all(cell.better is None for cell in table.rows[0].cells)


def test_layers_of_different_width_are_not_compared(make_run):
    twin = make_run("a", method="supervised", features=True, pictures=0)
    other = make_run("b", features=True, seed=3, pictures=0)
    change(other, lambda values: values["features"][0].update(width=9))
    groups = groups_of(twin, other)
    table = feature_table(groups, reference_of(groups))
    assert any("differ in width" in note for note in table.notes)
    assert all(cell.better is None for cell in table.rows[1].cells)


def test_seeds_are_pooled(make_run):
    folders = [make_run(f"r{s}", seed=s, features=True, pictures=0) for s in range(2)]
    groups = groups_of(*folders)
    values = [read_run(folder).result.features[0].uniformity for folder in folders]
    text = feature_table(groups, groups[0]).rows[0].cells[2].text
    assert text.startswith(f"{sum(values) / 2:.3f} ± ")


def test_what_flatters_the_numbers_is_said(make_run):
    folder = make_run(features=True, pictures=0)

    def edit(values):
        values["features"][0]["classes"][2]["count"] = 1

    change(folder, edit)
    groups = groups_of(folder)
    (note,) = feature_table(groups, groups[0]).notes
    assert note.startswith("classifier input: road have a single feature")


def test_similarity_lists_the_closest_pairs(make_run):
    folder = make_run(features=True, pictures=0)

    def edit(values):
        rows = values["features"][0]["similarity"]
        rows[5][2] = rows[2][5] = 0.999
        rows[0] = [None] * 8
        for row in rows:
            row[0] = None

    change(folder, edit)
    (item,) = similarities(groups_of(folder))
    assert item.closest[0] == ("car", "road", pytest.approx(0.999))
    assert item.layer == "classifier input"
    assert item.numbers
    assert item.cosines[0][0] is None
    assert not any("sky" in pair for pair in item.closest)
