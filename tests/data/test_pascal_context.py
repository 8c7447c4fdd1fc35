import numpy as np
import pytest
from tests.data.layouts import CONTEXT, draw_pascal_context

from pixelcontrast.data.catalog import open_dataset, recognise
from pixelcontrast.data.checks import check_dataset
from pixelcontrast.data.pascal_context import CLASSES, INFO60
from pixelcontrast.data.reading import read_mask


@pytest.mark.parametrize("matlab", [True, False])
@pytest.mark.parametrize("name", ["pascal_context", "pascal_context60"])
def test_both_forms(tmp_path, matlab, name):
    root = draw_pascal_context(tmp_path, matlab=matlab)
    assert recognise(root) == "pascal_context"
    dataset = open_dataset(root, name)
    assert dataset.splits["train"] == CONTEXT["train"]
    assert dataset.splits["val"] == CONTEXT["val"]
    assert "train has 2 of 4,998 images; val has 1 of 5,105 images" in dataset.problems[0].message
    mask = read_mask(dataset.samples[0].mask, dataset.info)
    seen = set(np.unique(mask))
    assert seen == ({*range(59), 255} if name == "pascal_context" else set(range(60)))
    assert check_dataset(dataset).ok


@pytest.mark.parametrize(
    ("stored", "name"),
    [(2, "aeroplane"), (9, "bag"), (23, "bicycle"), (284, "person"), (397, "table"),
     (427, "tvmonitor"), (458, "wood")],
)  # fmt: skip
def test_numbers_of_the_459_labels(tmp_path, stored, name):
    info = open_dataset(draw_pascal_context(tmp_path), "pascal_context60").info
    assert info.classes[info.label_map[stored]] == name
    assert info.label_map[1] == info.label_map[459] == 0


def test_names():
    assert len(CLASSES) == 59
    assert list(CLASSES) == sorted(CLASSES)
    assert INFO60.classes[0] == "background"
