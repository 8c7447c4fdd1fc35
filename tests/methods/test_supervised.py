from typing import ClassVar

import pytest
import torch

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.methods.segmentation import SegmentationLoss, SegmentationLossConfig
from tests.methods.tester import MethodTester


class TestSupervised(MethodTester):
    name = "supervised"


class TestSupervisedWithMining(MethodTester):
    name = "supervised"
    options: ClassVar[dict] = {"segmentation": {"ohem_threshold": 0.7, "ohem_min_kept": 100}}


def test_class_weights_must_fit_the_classes():
    with pytest.raises(ConfigError, match="2 class weights for 3 classes"):
        SegmentationLoss(SegmentationLossConfig(class_weights=(1.0, 2.0)), 3, 255)


def test_auxiliary_scores_add_a_weighted_term():
    from pixelcontrast.core.types import SegOutput

    logits = torch.randn(1, 3, 4, 4)
    mask = torch.randint(0, 3, (1, 4, 4))
    loss = SegmentationLoss(SegmentationLossConfig(auxiliary_weight=0.4), 3, 255)
    terms = loss(SegOutput(logits=logits, features=logits, auxiliary=(logits, logits)), mask)
    torch.testing.assert_close(terms["auxiliary"], 0.8 * terms["ce"])
