import pytest
import yaml

from pixelcontrast.data.dataset import DatasetInfo
from pixelcontrast.data.proposals import (
    propose_colours,
    propose_new,
    propose_values,
    shown_values,
)

TWO = DatasetInfo("x", ("road", "car"))


@pytest.mark.parametrize(
    ("values", "info", "expected"),
    [
        ([1, 2], TWO, {1: "road", 2: "car"}),
        ([0, 128], TWO, {0: "road", 128: "car"}),
        ([0, 1, 4], TWO, {0: "road", 1: "car", 4: "ignore"}),
        ([0, 1, 4, 255], TWO, {0: "road", 1: "car", 4: "ignore"}),
        ([3, 5], DatasetInfo("x", ("a",), label_map={3: 0}), {3: "a", 5: "ignore"}),
        ([7, 9], DatasetInfo("x", ()), {7: "class_0", 9: "class_1"}),
    ],
)
def test_maps_for_values(values, info, expected):
    text = propose_values(dict.fromkeys(values, 1), info)
    assert yaml.safe_load(text[text.index("label_map") :])["label_map"] == expected


def test_too_many_values_or_colours_are_no_labels():
    assert "no labels" in propose_values(dict.fromkeys(range(300), 1), TWO)
    assert "no labels" in propose_colours(dict.fromkeys(range(300), 1), TWO)


def test_maps_for_colours_keep_what_is_declared():
    info = DatasetInfo("x", ("a", "b"), ((1, 2, 3), (4, 5, 6)), label_map={(9, 9, 9): 1})
    text = propose_colours({0x090909: 5, 0x010203: 9, 0xFFFFFF: 1}, info)
    found = yaml.safe_load(text[text.index("label_map") :])["label_map"]
    assert found == {"#010203": "a", "#090909": "b", "#ffffff": "ignore"}


def test_new_classes():
    assert yaml.safe_load(propose_new([0, 38], ignored=[99])) == {
        "classes": ["class_0", "class_1"],
        "label_map": {0: "class_0", 38: "class_1", 99: "ignore"},
    }


def test_classes_that_nobody_has_named_are_part_of_the_proposal():
    inferred = DatasetInfo("x", ("class_0", "class_1"))
    assert "classes:" not in propose_values({0: 9, 1: 9, 4: 1}, inferred)
    text = propose_values({0: 9, 1: 9, 4: 1}, inferred, named=False)
    assert yaml.safe_load(text.partition(":\n")[2]) == {
        "classes": ["class_0", "class_1"],
        "label_map": {0: "class_0", 1: "class_1", 4: "ignore"},
    }


def test_names_that_yaml_would_take_for_something_else_are_quoted():
    info = DatasetInfo("x", ("yes", "a: b", "no"))
    text = propose_values({0: 1, 1: 1, 2: 1, 9: 1}, info)
    found = yaml.safe_load(text.partition(":\n")[2])["label_map"]
    assert found == {0: "yes", 1: "a: b", 2: "no", 9: "ignore"}


def test_long_lists_are_cut():
    assert shown_values(range(14)).endswith("11 and 2 more")
