import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from pixelcontrast.evaluation import SegScores
from pixelcontrast.report.classes import class_rows, confusion_of, occurrences, palette_of
from pixelcontrast.report.groups import grouped, reference_of
from pixelcontrast.report.run import read_run


def edit(folder, file, change):
    path = folder / file
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def rows_of(*folders):
    runs = [read_run(folder) for folder in folders]
    groups = grouped(runs)
    return class_rows(groups, reference_of(groups), palette_of(runs[0]))


def test_rows_by_falling_iou(make_run):
    folder = make_run(pictures=0)
    rows = rows_of(folder)
    scores = read_run(folder).result.scores
    values = [row.bars[0].iou.mean for row in rows]
    assert values == sorted(scores.iou, reverse=True)
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert {row.name for row in rows if "rare" in row.notes} == {"person", "sign"}


def test_absent_and_spurious_classes_are_named_at_the_end(make_run):
    folder = make_run(pictures=0)
    counts = torch.zeros(8, 8, dtype=torch.int64)
    counts[0, 0], counts[1, 1], counts[0, 2] = 50, 60, 5
    names = read_run(folder).classes
    values = SegScores(counts).to_dict(names)
    edit(folder, "evaluation/val/scores.json", lambda stored: stored.update(scores=values))
    rows = rows_of(folder)
    notes = {row.name: row.notes for row in rows}
    assert rows[0].name == "building"
    assert "never true, yet predicted: IoU 0" in notes["road"]
    assert "absent: not in the mean" in notes["tree"]
    assert rows[-1].bars[0].iou.mean is None


def test_differences_are_to_the_reference(make_run):
    folders = [
        make_run("p", method="pico", quality=0.9, pictures=0),
        make_run("s", method="supervised", quality=0.4, pictures=0),
    ]
    pico, plain = (read_run(folder).result.scores.iou for folder in folders)
    rows = {row.name: row for row in rows_of(*folders)}
    bars = rows["road"].bars
    assert bars[0].delta == pytest.approx(pico[2] - plain[2])
    assert bars[1].delta is None


def test_confusion_rows_add_up_and_mistakes_are_sorted():
    counts = torch.tensor([[90, 10, 0], [30, 70, 0], [0, 0, 0]])
    found = confusion_of(SegScores(counts), ("a", "b", "c"))
    assert found.shares == ((0.9, 0.1, 0.0), (0.3, 0.7, 0.0), (0.0, 0.0, 0.0))
    assert found.mistakes == (("b", "a", 0.3), ("a", "b", 0.1))
    assert found.numbers
    assert not found.image


def test_many_classes_become_a_picture():
    counts = torch.eye(60, dtype=torch.int64)
    found = confusion_of(SegScores(counts), tuple(map(str, range(60))))
    assert found.image.startswith("data:image/png")
    assert found.shares == ()
    assert found.mistakes == ()


def test_occurrences(make_run):
    rows = occurrences(read_run(make_run(pictures=0)), [(0, 0, 0)] * 8)
    assert [row.name for row in rows[:2]] == ["road", "sky"]
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert rows[-1].rare
    assert rows[-1].images == 8
    assert all(a.bar >= b.bar for a, b in pairwise(rows))


@pytest.mark.parametrize("pixels", [None, [], [1, 2], [0] * 8, "x"])
def test_no_statistics_no_rows(make_run, pixels):
    folder = make_run(pictures=0)
    edit(folder, "run.json", lambda r: r["dataset"]["statistics"].update(pixels=pixels))
    assert occurrences(read_run(folder), [(0, 0, 0)] * 8) == []


def test_missing_colours_are_made_up_and_distinct(make_run):
    folder = make_run(pictures=0)
    edit(folder, "run.json", lambda r: r["dataset"].update(palette=[[300, 0, 0], "red", [1, 2, 3]]))
    palette = palette_of(read_run(folder))
    assert palette[2] == (1, 2, 3)
    assert len(set(palette)) == 8
    assert np.array(palette).max() <= 255
