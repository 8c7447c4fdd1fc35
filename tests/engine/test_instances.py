import cv2
import numpy as np
import pytest
import torch

from pixelcontrast.core.errors import DataError
from pixelcontrast.data import Sample
from pixelcontrast.engine.instances import InstanceMaps
from pixelcontrast.evaluation.instances import AVERAGE_SIZE, CLASSES


def sample(tmp_path, name, instances):
    path = tmp_path / f"{name}_instances.png"
    if instances is not None:
        cv2.imwrite(str(path), np.array(instances, np.uint16))
    return Sample(name, tmp_path / "a.png", instances=None if instances is None else path)


TRUTH = torch.tensor([[13, 13, 0, 255]], dtype=torch.uint8)
INSTANCES = [[26001, 26001, 7, 0]]


def test_maps_are_read_and_train_ids_translated(tmp_path):
    maps = InstanceMaps([sample(tmp_path, "one", INSTANCES)], list(CLASSES))
    maps.consider("one", TRUTH, torch.tensor([[13, 0, 13, 13]], dtype=torch.uint8))
    scores = maps.scores()
    a = AVERAGE_SIZE["car"]
    assert scores.class_iiou["car"] == pytest.approx(0.5 * a / (a + 1), rel=1e-12)
    assert scores.class_iou["car"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("names", [list(CLASSES)[:18], ["a"] * 19])
def test_other_classes_have_no_weights(tmp_path, names):
    maps = InstanceMaps([sample(tmp_path, "one", INSTANCES)], names)
    maps.consider("one", TRUTH, TRUTH)
    assert maps.scores() is None


def test_a_split_with_a_missing_map_is_not_weighed(tmp_path):
    samples = [sample(tmp_path, "one", INSTANCES), sample(tmp_path, "two", None)]
    assert InstanceMaps(samples, list(CLASSES)).scores() is None


def test_a_map_of_another_size_is_refused(tmp_path):
    maps = InstanceMaps([sample(tmp_path, "one", [[7, 7]])], list(CLASSES))
    with pytest.raises(DataError, match="full size"):
        maps.consider("one", TRUTH, TRUTH)
