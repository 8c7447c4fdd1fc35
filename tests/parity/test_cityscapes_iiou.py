"""Instance-weighted IoU against the official Cityscapes script."""

import numpy as np
import pytest

from pixelcontrast.evaluation import InstanceMeter
from pixelcontrast.evaluation.instances import AVERAGE_SIZE, CATEGORIES, CLASSES


def test_every_case_has_a_check(reference_cases):
    assert {case.kind for case in reference_cases("cityscapes_iiou")} == {"scores"}


@pytest.mark.reference("cityscapes_iiou", kind="scores")
def test_tables_are_those_of_the_script(case):
    assert case.meta["names"] == list(CLASSES)
    assert case.meta["ids"] == list(CLASSES.values())
    assert case.meta["categories"] == list(CATEGORIES)
    sizes = dict(zip(case.meta["sized"], case.meta["sizes"], strict=True))
    for name, size in AVERAGE_SIZE.items():
        assert size == pytest.approx(sizes[name], rel=1e-12)


@pytest.mark.reference("cityscapes_iiou", kind="scores")
def test_scores_are_those_of_the_script(case):
    meter = InstanceMeter()
    names = ("pred_label_ids", "gt_label_ids", "gt_instance_ids")
    for arrays in zip(*(case.arrays[name] for name in names), strict=True):
        meter.update(*arrays)
    np.testing.assert_array_equal(meter.confusion, case.arrays["confusion_matrix_gt_rows"])
    scores = meter.scores()
    for name, mean in scores.means.items():
        found = np.array(list(getattr(scores, name).values()))
        np.testing.assert_allclose(found, case.arrays[name], rtol=1e-9, atol=0, equal_nan=True)
        np.testing.assert_allclose(mean, case.arrays[f"mean_{name}"], rtol=1e-9, atol=0)
