import numpy as np
import pytest

from pixelcontrast.evaluation import InstanceMeter
from pixelcontrast.evaluation.instances import AVERAGE_SIZE, CLASSES, knows_classes, label_ids


def image():
    """Two cars of 4 and 2 pixels, a group of cars, road, and something unlabelled."""
    target = np.array([[26, 26, 26, 26, 7, 7], [26, 26, 26, 7, 7, 0]])
    instances = np.array([[26001, 26001, 26001, 26001, 7, 7], [26000, 26000, 26, 7, 7, 0]])
    prediction = np.array([[26, 26, 27, 7, 7, 26], [26, 7, 26, 7, 7, 26]])
    return prediction, target, instances


def test_weights_by_hand():
    meter = InstanceMeter()
    meter.update(*image())
    scores = meter.scores()
    a = AVERAGE_SIZE["car"]
    # 2 of 4 and 1 of 2 pixels are found; one road pixel is taken for a car. The unlabelled pixel
    # is no false positive, the group is neither hit nor miss.
    assert scores.class_iiou["car"] == pytest.approx(a / (2 * a + 1), rel=1e-12)
    assert scores.class_iou["car"] == pytest.approx(4 / 8)
    # The truck pixel is right for the category of vehicles.
    assert scores.category_iiou["vehicle"] == pytest.approx(1.25 * a / (2 * a + 1), rel=1e-12)
    assert scores.class_iiou["truck"] == 0.0
    assert np.isnan(scores.class_iiou["road"])
    assert np.isnan(scores.class_iou["person"])
    assert scores.means["class_iiou"] == pytest.approx(scores.class_iiou["car"] / 2)


def test_images_add_up():
    together, left, right = InstanceMeter(), InstanceMeter(), InstanceMeter()
    first, second = image(), tuple(part[:, ::-1] for part in image()[:1]) + image()[1:]
    for part in (first, second):
        together.update(*part)
    left.update(*first)
    right.update(*second)
    left.merge(right)
    assert left.scores().to_dict() == together.scores().to_dict()


def test_plain_values():
    values = InstanceMeter().scores().to_dict()
    assert set(values) == {"class_iou", "class_iiou", "category_iou", "category_iiou", "means"}
    assert set(values["class_iou"].values()) == {None}
    assert values["means"]["class_iiou"] is None


def test_train_ids_become_label_ids():
    assert label_ids(np.array([[0, 13], [18, 255]], np.uint8)).tolist() == [[7, 26], [33, 0]]
    assert knows_classes(list(CLASSES))
    assert not knows_classes(list(CLASSES)[::-1])


def test_what_cannot_be_counted_is_refused():
    prediction, target, instances = image()
    with pytest.raises(ValueError, match="differ in size"):
        InstanceMeter().update(prediction[:1], target, instances)
    with pytest.raises(ValueError, match=r"0 \.\. 33"):
        InstanceMeter().update(prediction + 9, target, instances)
