import numpy as np
import pytest
from tests.data.layouts import draw_ade20k

from pixelcontrast.data.ade20k import INFO
from pixelcontrast.data.catalog import open_dataset, recognise
from pixelcontrast.data.checks import check_dataset
from pixelcontrast.data.reading import read_mask


@pytest.mark.parametrize("inside", ["", "ADEChallengeData2016"])
def test_layout(tmp_path, inside):
    root = draw_ade20k(tmp_path) / inside
    assert recognise(root) == "ade20k"
    dataset = open_dataset(root)
    assert dataset.splits["train"] == ("ADE_train_00000001", "ADE_train_00000002")
    assert dataset.splits["val"] == ("ADE_val_00000001",)
    assert "train has 2 of 20,210 images" in dataset.problems[0].message
    assert check_dataset(dataset).ok


def test_zero_is_ignored_and_the_rest_moves_down(tmp_path):
    dataset = open_dataset(draw_ade20k(tmp_path))
    mask = read_mask(dataset.samples[0].mask, dataset.info)
    assert mask[0, 0] == 255
    assert mask[-1, -1] == 149
    assert set(np.unique(mask)) == {*range(150), 255}


def test_names_and_colours():
    assert len(INFO.classes) == len(INFO.palette) == 150
    assert [INFO.classes[i] for i in (0, 12, 50, 149)] == ["wall", "person", "refrigerator", "flag"]
    assert INFO.palette[0] == (120, 120, 120)
    assert INFO.palette[149] == (92, 0, 255)
