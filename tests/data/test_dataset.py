import pickle
from pathlib import Path

import numpy as np
import pytest

from pixelcontrast.core.errors import DataError
from pixelcontrast.data.dataset import DatasetInfo, Sample, SegDataset, default_palette


def test_palette_is_generated_and_distinct():
    info = DatasetInfo("x", tuple(f"c{i}" for i in range(60)))
    assert info.num_classes == 60
    assert info.palette == default_palette(60)
    assert len(set(info.palette)) == 60
    colours = np.array(default_palette(12), int)
    distance = np.abs(colours[:, None] - colours[None]).sum(-1)
    assert distance[~np.eye(12, dtype=bool)].min() > 40


def test_palette_does_not_depend_on_the_class_count():
    assert default_palette(20)[:5] == default_palette(5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ("a", "a")}, "twice"),
        ({"classes": tuple(map(str, range(255)))}, "at most 254"),
        ({"classes": ("a", "b"), "palette": ((0, 0, 0),)}, "1 colours for 2"),
        ({"classes": ("a", "b"), "ignore_index": 1}, "ignore_index 1"),
        ({"classes": ("a", "b"), "ignore_index": 256}, "ignore_index 256"),
        ({"classes": ("a", "b"), "label_map": {0: 2}}, "no class id"),
        ({"classes": ("a", "b"), "label_map": {(1, 2, 3): 254}}, "no class id"),
    ],
)
def test_contradictions_are_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        DatasetInfo("x", **arguments)


def test_the_largest_class_count_is_possible():
    assert DatasetInfo("x", tuple(map(str, range(254)))).num_classes == 254


@pytest.fixture
def dataset():
    samples = tuple(Sample(i, Path(f"{i}.jpg")) for i in "abc")
    splits = {"train": ("c", "a"), "empty": (), "wrong": ("a", "d")}
    return SegDataset(DatasetInfo("x", ("u", "v")), Path("root"), samples, splits)


def test_select_keeps_the_order_of_the_split(dataset):
    assert [s.id for s in dataset.select("train")] == ["c", "a"]


@pytest.mark.parametrize(
    ("split", "message"),
    [("traim", "did you mean 'train'"), ("empty", "is empty"), ("wrong", "do not exist: d")],
)
def test_select_refuses(dataset, split, message):
    with pytest.raises(DataError, match=message):
        dataset.select(split)


def test_with_splits_adds_replaces_and_checks(dataset):
    changed = dataset.with_splits({"train": ["b"], "new": ("a",)})
    assert changed.splits["train"] == ("b",)
    assert changed.splits["new"] == ("a",)
    assert dataset.splits["train"] == ("c", "a")
    with pytest.raises(DataError, match="names 1 images"):
        dataset.with_splits({"new": ["zzz"]})


def test_data_sets_travel_to_worker_processes(dataset):
    assert pickle.loads(pickle.dumps(dataset)) == dataset
