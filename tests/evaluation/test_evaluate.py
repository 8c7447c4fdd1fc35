import json
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.core.types import SegOutput
from pixelcontrast.evaluation import (
    ConfusionMatrix,
    FeatureConfig,
    FeatureMeter,
    InferenceConfig,
    InstanceMeter,
    evaluate,
    near_boundary,
    predict_labels,
)


@dataclass
class LabelledImages:
    image: Tensor
    mask: Tensor | None
    ids: tuple[str, ...]


def network(image):
    return torch.nn.functional.avg_pool2d(image.float(), 3, stride=2, padding=1)


def make_batch(seed, size=2, height=11, width=13, labelled=True):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, 3, (size, height, width), generator=generator, dtype=torch.uint8)
    mask[:, :, -2:] = 255
    return LabelledImages(
        image=torch.randint(
            0, 256, (size, 3, height, width), generator=generator, dtype=torch.uint8
        ),
        ids=tuple(f"image_{seed}_{i}" for i in range(size)),
        mask=mask if labelled else None,
    )


BATCHES = [make_batch(0), make_batch(1, size=1, height=7)]


def test_scores_are_those_of_the_pooled_counts():
    outcome = evaluate(network, BATCHES, num_classes=3)
    expected = ConfusionMatrix(3)
    for batch in BATCHES:
        labels, _ = predict_labels(network, batch.image)
        expected.update(labels, batch.mask)
    assert torch.equal(outcome.scores.confusion, expected.counts)
    assert outcome.scores.ignored == 2 * 2 * 11 + 2 * 7


def test_each_image_has_its_own_score():
    outcome = evaluate(network, BATCHES, num_classes=3)
    assert [image.id for image in outcome.images] == ["image_0_0", "image_0_1", "image_1_0"]
    second = BATCHES[0]
    labels, _ = predict_labels(network, second.image)
    alone = ConfusionMatrix(3)
    alone.update(labels[1, :, :-2], second.mask[1, :, :-2])
    image = outcome.images[1]
    assert image.miou == pytest.approx(alone.scores().miou_of_present)
    assert image.accuracy == pytest.approx(alone.scores().pixel_accuracy)
    assert image.pixels == 11 * 11
    assert image.to_dict()["id"] == "image_0_1"


def test_worst_images_first_and_unlabelled_ones_left_out():
    empty = make_batch(2, size=1)
    empty.mask.fill_(255)
    outcome = evaluate(network, [*BATCHES, empty], num_classes=3)
    assert outcome.images[-1].miou is None
    worst = outcome.worst(10)
    assert len(worst) == 3
    assert [image.miou for image in worst] == sorted(image.miou for image in worst)


def test_the_configuration_is_used():
    slide = InferenceConfig(mode="slide", crop=(4, 4))
    plain = evaluate(network, BATCHES, num_classes=3)
    moved = evaluate(network, BATCHES, num_classes=3, config=slide)
    assert not torch.equal(plain.scores.confusion, moved.scores.confusion)


def test_pictures_are_offered_once_each():
    seen = []

    def on_image(score, image, target, labels):
        assert image.shape == (3, *target.shape)
        assert labels.shape == target.shape
        assert (target[:, -2:] == 255).all()
        seen.append(score.id)

    outcome = evaluate(network, BATCHES, num_classes=3, on_image=on_image)
    assert seen == [image.id for image in outcome.images]


def test_an_image_without_a_mask_is_refused_by_name():
    with pytest.raises(DataError) as caught:
        evaluate(network, [make_batch(3, labelled=False)], num_classes=3)
    assert "image_3_0" in str(caught.value)


def test_a_foreign_label_names_its_image():
    batch = make_batch(4)
    batch.mask[1, 0, 0] = 9
    with pytest.raises(DataError) as caught:
        evaluate(network, [batch], num_classes=3)
    assert caught.value.where == "image_4_1"


class WithFeatures:
    """A network whose features are known, counting its passes."""

    def __init__(self):
        self.passes = []

    def __call__(self, image):
        self.passes.append(image.shape[-2:])
        return SegOutput(logits=network(image), features=image.float()[:, :, ::2, ::2] + 1)


def test_features_come_from_the_scored_pass():
    model = WithFeatures()
    outcome = evaluate(model, BATCHES, num_classes=3, features=FeatureConfig())
    assert len(model.passes) == len(BATCHES)
    expected = FeatureMeter("classifier input", 3, 3)
    for batch in BATCHES:
        expected.update(batch.image.float()[:, :, ::2, ::2] + 1, batch.mask, batch.ids)
    assert outcome.features == (expected.scores(),)
    vectors, labels = outcome.samples["classifier input"]
    assert len(vectors) == len(labels) == expected.counts.sum()
    assert (
        outcome.features
        == evaluate(
            model,
            BATCHES,
            num_classes=3,
            features=FeatureConfig(),
            config=InferenceConfig(flip=True),
        ).features
    )


def test_features_of_several_scales_are_those_nearest_to_one():
    model = WithFeatures()
    config = InferenceConfig(scales=(0.5, 0.9, 2.0))
    evaluate(model, BATCHES[1:], num_classes=3, features=FeatureConfig(), config=config)
    assert model.passes[-1] == (round(0.9 * 7), round(0.9 * 13))
    assert len(model.passes) == 4


def test_class_scores_alone_have_no_features():
    with pytest.raises(ConfigError, match="class scores alone"):
        evaluate(network, BATCHES, num_classes=3, features=FeatureConfig())


def test_scores_near_boundaries():
    outcome = evaluate(network, BATCHES, num_classes=3, boundary=2.0)
    expected = ConfusionMatrix(3)
    for batch in BATCHES:
        labels, _ = predict_labels(network, batch.image)
        near = near_boundary(batch.mask, 2.0)
        expected.update(labels, batch.mask.masked_fill(~near, 255))
    assert torch.equal(outcome.boundary.scores.confusion, expected.counts)
    assert outcome.boundary.distance == 2.0


def test_everything_as_text_and_values():
    names = ["a", "b", "c"]
    bare = evaluate(network, BATCHES, num_classes=3)
    assert bare.table(names) == bare.scores.table(names)
    assert bare.to_dict(names)["boundary"] is None
    full = evaluate(WithFeatures(), BATCHES, num_classes=3, boundary=1, features=FeatureConfig())
    full = replace(full, instances=InstanceMeter().scores())
    table = full.table(names)
    assert "within 1 pixels of a boundary" in table
    assert "classifier input (width 3): A " in table
    values = json.loads(json.dumps(full.to_dict(names), allow_nan=False))
    assert values["boundary"]["miou"] == full.boundary.scores.miou
    assert values["features"][0]["layer"] == "classifier input"
    assert "class_iiou" in values["instances"]
