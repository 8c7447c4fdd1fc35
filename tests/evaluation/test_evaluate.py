from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from pixelcontrast.core.errors import DataError
from pixelcontrast.evaluation import ConfusionMatrix, InferenceConfig, evaluate, predict_labels


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
