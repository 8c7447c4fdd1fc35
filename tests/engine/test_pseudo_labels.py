from dataclasses import replace

import numpy as np
import pytest
import torch

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.data import Sample, read_mask, write_mask
from pixelcontrast.data.cache import FileReader
from pixelcontrast.data.dataset import DatasetInfo
from pixelcontrast.engine.pseudo_labels import (
    PseudoLabelConfig,
    certain_labels,
    class_thresholds,
)

VOC = DatasetInfo("voc", ("background", "cat"))
CITYSCAPES = DatasetInfo("cityscapes", ("road", "pole"))


def labels_of(info, config, predictions):
    names, confidence = zip(*predictions, strict=True)
    labels = torch.tensor([[[info.classes.index(name) for name in names]]], dtype=torch.uint8)
    found = certain_labels(
        labels, torch.tensor([[confidence]]), class_thresholds(config, info), info.ignore_index
    )
    assert found.dtype == torch.uint8
    return [None if i == 255 else info.classes[i] for i in found.flatten().tolist()]


def test_thresholds_of_the_paper():
    voc = PseudoLabelConfig(thresholds={"background": 0.97})
    found = labels_of(
        VOC, voc, [("background", 0.96), ("background", 0.98), ("cat", 0.81), ("cat", 0.79)]
    )
    assert found == [None, "background", "cat", None]
    assert labels_of(CITYSCAPES, PseudoLabelConfig(), [("road", 0.81)]) == ["road"]


def test_equal_to_the_threshold_is_certain_enough():
    voc = PseudoLabelConfig(thresholds={"background": 0.97})
    assert labels_of(VOC, voc, [("background", 0.97), ("cat", 0.8)]) == ["background", "cat"]


def test_unknown_classes_and_impossible_thresholds_are_named():
    with pytest.raises(ConfigError, match="did you mean 'cat'"):
        class_thresholds(PseudoLabelConfig(thresholds={"cats": 0.5}), VOC)
    with pytest.raises(ConfigError, match="-1"):
        PseudoLabelConfig(thresholds={"cat": -1})


def test_stored_masks_are_class_ids_whatever_the_label_map(tmp_path):
    info = replace(CITYSCAPES, label_map={7: 0, 17: 1})
    mask = np.array([[0, 1, 255]], np.uint8)
    write_mask(tmp_path / "a.png", mask, info.palette)
    sample = Sample("a", tmp_path / "a.png", tmp_path / "a.png", decoded=True)
    assert np.array_equal(FileReader([sample], info).mask(0), mask)
    with pytest.raises(Exception, match="undeclared"):
        read_mask(tmp_path / "a.png", info)
