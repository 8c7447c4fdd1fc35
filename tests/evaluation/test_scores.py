import json
import math

import numpy as np
import pytest
import torch

from pixelcontrast.evaluation import SegScores

NAMES = ("road", "sky", "ghost", "stray")
COUNTS = torch.tensor([[50, 10, 0, 5], [20, 100, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


@pytest.fixture
def scores():
    return SegScores(COUNTS, ignored=7)


def test_values_by_hand(scores):
    road, sky = 50 / 85, 100 / 130
    assert scores.iou == pytest.approx((road, sky, None, 0.0))
    assert scores.miou == pytest.approx((road + sky + 0) / 3)
    assert scores.pixel_accuracy == pytest.approx(150 / 185)
    assert scores.accuracy == pytest.approx((50 / 65, 100 / 120, None, None))
    assert scores.mean_accuracy == pytest.approx((50 / 65 + 100 / 120) / 2)
    assert scores.precision == pytest.approx((50 / 70, 100 / 110, None, 0.0))
    assert scores.pixels == (65, 120, 0, 0)
    assert scores.predicted == (70, 110, 0, 5)


def test_who_is_missing(scores):
    assert scores.absent == (2,)
    assert scores.spurious == (3,)


def test_score_of_an_image_runs_over_its_own_classes(scores):
    assert scores.miou_of_present == pytest.approx((50 / 85 + 100 / 130) / 2)


def test_against_a_plain_numpy_form():
    counts = np.random.default_rng(0).integers(1, 1000, (19, 19))
    scores = SegScores(torch.from_numpy(counts))
    hits = np.diag(counts)
    iou = hits / (counts.sum(0) + counts.sum(1) - hits)
    assert scores.iou == pytest.approx(iou.tolist())
    assert scores.miou == pytest.approx(iou.mean())
    assert scores.mean_accuracy == pytest.approx((hits / counts.sum(1)).mean())


def test_nothing_counted_gives_none_not_nan():
    scores = SegScores(torch.zeros(2, 2, dtype=torch.int64))
    assert scores.miou is None
    assert scores.pixel_accuracy is None
    assert scores.mean_accuracy is None
    assert scores.miou_of_present is None
    assert scores.absent == (0, 1)
    assert "-" in scores.table(("a", "b"))


def test_counts_beyond_float32_stay_exact():
    big = 2**40 + 1
    scores = SegScores(torch.tensor([[big, 0], [0, 1]]))
    assert scores.pixels == (big, 1)
    assert scores.to_dict(("a", "b"))["confusion"][0][0] == big


def test_dictionary_goes_through_json_and_back(scores):
    text = json.dumps(scores.to_dict(NAMES), allow_nan=False)
    values = json.loads(text)
    assert values["absent"] == ["ghost"]
    assert values["spurious"] == ["stray"]
    assert values["classes"][0] == {
        "name": "road",
        "iou": pytest.approx(50 / 85),
        "accuracy": pytest.approx(50 / 65),
        "precision": pytest.approx(50 / 70),
        "pixels": 65,
        "predicted": 70,
    }
    back = SegScores.from_dict(values)
    assert torch.equal(back.confusion, scores.confusion)
    assert back.ignored == 7
    assert math.isclose(back.miou, values["miou"])


@pytest.mark.parametrize(
    "confusion", [None, [], [[1, 2]], [[1, 2], [3]], [[1.5]], [[-1]], "text", [["1"]], [[True]]]
)
def test_a_damaged_dictionary_is_refused(confusion):
    with pytest.raises(ValueError, match="square table"):
        SegScores.from_dict({"confusion": confusion})


def test_names_must_fit(scores):
    with pytest.raises(ValueError, match="1 names for 4 classes"):
        scores.to_dict(("a",))


def test_table_names_what_is_left_out(scores):
    table = scores.table(NAMES)
    lines = table.splitlines()
    assert lines[2].split() == ["road", "58.82", "76.92", "71.43", "65"]
    assert "not in the mean: ghost" in table
    assert "IoU 0 in the mean: stray" in table
    assert "7 pixels unlabelled" in table
    assert len({len(line) for line in lines[:8]}) == 1
