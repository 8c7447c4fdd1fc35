from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.sampling import boundaries, boundary_negatives, label_distance
from pixelcontrast.sampling.boundaries import LOTTERY_BITS, nearest_to_edge

IGNORE = 255


def blobs(seed, images, height, width, labels):
    """Label maps of rectangles, so that regions have an inside."""
    g = torch.Generator().manual_seed(seed)
    maps = torch.zeros(images, height, width, dtype=torch.int64)
    for image in maps:
        for _ in range(6):
            top, left = (int(torch.randint(0, n, (), generator=g)) for n in (height, width))
            tall, wide = (int(torch.randint(1, n + 1, (), generator=g)) for n in (height, width))
            label = int(torch.randint(0, labels, (), generator=g))
            image[top : top + tall, left : left + wide] = label
    return maps


def lottery_for(shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(1 << LOTTERY_BITS, shape, generator=g)


def transforms_of(label_map):
    """One Euclidean transform a label, the slow way."""
    found = np.full(label_map.shape, np.inf)
    for label in np.unique(label_map):
        inside = label_map == label
        if not inside.all():
            found[inside] = distance_transform_edt(inside)[inside]
    return found


@given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 3),
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    labels=st.integers(1, 6),
)
@settings(max_examples=60, deadline=None)
def test_distances_are_those_of_the_transform_of_every_label(seed, images, height, width, labels):
    maps = blobs(seed, images, height, width, labels) - 1
    expected = torch.from_numpy(np.stack([transforms_of(m) for m in maps.numpy()])).float()
    torch.testing.assert_close(label_distance(maps), expected, rtol=1e-6, atol=0)


def test_tiles_do_not_change_the_distances(monkeypatch):
    maps = blobs(3, 2, 31, 17, 5)
    whole = label_distance(maps)
    monkeypatch.setattr(boundaries, "TILE_ELEMENTS", 2000)
    assert torch.equal(label_distance(maps), whole)


def test_distances_of_a_large_map_are_exact():
    maps = blobs(1, 1, 300, 400, 3)
    expected = torch.from_numpy(transforms_of(maps[0].numpy())).float()
    torch.testing.assert_close(label_distance(maps)[0], expected, rtol=1e-6, atol=0)


def test_a_square_of_errors():
    """Check 3 of the specification: 16 pixels at distance 1, 8 at 2, 1 at 3."""
    regions = torch.full((1, 7, 7), -1)
    regions[:, 1:6, 1:6] = 0
    distance = label_distance(regions)[regions == 0]
    assert [int((distance == d).sum()) for d in (1, 2, 3)] == [16, 8, 1]
    for ratio, expected in ((0.5, {1: 13, 2: 0}), (0.8, {1: 16, 2: 4})):
        kept = nearest_to_edge(regions, lottery_for(regions.shape), ratio=ratio, num_regions=1)
        chosen = label_distance(regions)[kept]
        assert {d: int((chosen == d).sum()) for d in (1, 2)} == expected
        assert len(chosen) == math.ceil(25 * ratio)


def test_the_border_of_the_image_is_no_edge():
    regions = torch.full((1, 4, 6), -1)
    regions[..., :4] = 0
    assert label_distance(regions)[0, :, :4].tolist() == [[4, 3, 2, 1]] * 4
    assert label_distance(torch.zeros(2, 3, 3)).isinf().all()


def example():
    """Check 4: class 0 is predicted too wide."""
    labels = torch.ones(1, 4, 10, dtype=torch.int64)
    labels[..., :3] = 0
    predictions = torch.zeros_like(labels)
    predictions[..., 8:] = 1
    return labels, predictions


def test_which_errors_are_negatives_of_which_class():
    labels, predictions = example()
    tickets = lottery_for(labels.shape)
    found = boundary_negatives(labels, predictions, tickets, num_classes=2)
    per_column = found[0].sum(1)
    assert per_column[1].sum() == 0
    assert per_column[0, [3, 7]].tolist() == [4, 4]
    assert per_column[0, [4, 6]].sum() == 2
    assert per_column[0].sum() == 10
    literal = boundary_negatives(labels, predictions, tickets, num_classes=2, error="literal")
    assert torch.equal(literal, found.flip(1))
    # What is wrong and of another class than 0: the same pixels.
    union = boundary_negatives(
        labels, predictions, tickets, num_classes=2, error="other_class_errors"
    )
    assert torch.equal(union, found)
    whole = boundary_negatives(labels, predictions, tickets, num_classes=2, ratio=1.0)
    assert whole[0].sum((1, 2)).tolist() == [20, 0]


def slow_negatives(labels, predictions, classes, ratio, error):
    """For every image and class: number kept, and the largest distance among them."""
    found = {}
    for image, (label, guess) in enumerate(zip(labels.numpy(), predictions.numpy(), strict=True)):
        wrong = (label != guess) & (label < classes)
        for n in range(classes):
            inside = (
                wrong
                & {
                    "false_positive": guess == n,
                    "literal": label == n,
                    "other_class_errors": label != n,
                }[error]
            )
            if inside.any():
                distance = distance_transform_edt(inside)[inside] if not inside.all() else [np.inf]
                keep = math.ceil(round(ratio * inside.sum(), 9))
                found[image, n] = (inside, np.sort(distance)[:keep])
    return found


@pytest.mark.parametrize("error", ["false_positive", "literal", "other_class_errors"])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0])
def test_negatives_are_the_nearest_of_every_region(error, ratio):
    classes = 4
    labels = blobs(5, 3, 20, 26, classes)
    predictions = blobs(9, 3, 20, 26, classes)
    labels[:, 4:9, 3:] = IGNORE
    found = boundary_negatives(
        labels,
        predictions,
        lottery_for(labels.shape),
        num_classes=classes,
        ratio=ratio,
        error=error,
    )
    expected = slow_negatives(labels, predictions, classes, ratio, error)
    assert len(expected) > 6
    for image in range(3):
        for n in range(classes):
            kept = found[image, n].numpy()
            if (image, n) not in expected:
                assert not kept.any()
                continue
            inside, distances = expected[image, n]
            assert not (kept & ~inside).any()
            chosen = np.sort(distance_transform_edt(inside)[kept])
            np.testing.assert_allclose(chosen, distances)


def test_ties_are_broken_by_the_lottery_and_not_by_place():
    labels, predictions = example()
    draws = [
        boundary_negatives(
            labels, predictions, lottery_for(labels.shape, seed), num_classes=2, ratio=0.1
        )[0, 0]
        for seed in range(40)
    ]
    assert all(int(draw.sum()) == 2 for draw in draws)
    often = torch.stack(draws).float().mean(0)
    assert often[:, [3, 7]].gt(0).all()  # every pixel at distance 1 is taken now and then
    assert torch.equal(
        draws[0],
        boundary_negatives(
            labels, predictions, lottery_for(labels.shape, 0), num_classes=2, ratio=0.1
        )[0, 0],
    )


def test_rounding_up_is_not_fooled_by_binary_fractions():
    regions = torch.zeros(1, 1, 11, dtype=torch.int64)
    regions[..., -1] = -1
    kept = nearest_to_edge(regions, lottery_for(regions.shape), ratio=0.3, num_regions=1)
    assert int(kept.sum()) == 3


def test_nothing_to_find_is_nothing_found():
    labels = torch.randint(0, 3, (2, 5, 5), generator=torch.Generator().manual_seed(0))
    tickets = lottery_for(labels.shape)
    assert not boundary_negatives(labels, labels, tickets, num_classes=3).any()
    ignored = torch.full_like(labels, IGNORE)
    assert not boundary_negatives(ignored, labels, tickets, num_classes=3).any()
    negative = torch.full_like(labels, -1)
    assert not boundary_negatives(negative, labels, tickets, num_classes=3).any()
    # One region over the whole map has no edge; its share is drawn at random.
    wrong = boundary_negatives(torch.zeros_like(labels), labels * 0 + 1, tickets, num_classes=3)
    assert wrong.sum((2, 3)).tolist() == [[0, 13, 0]] * 2


def test_unknown_error_maps_are_named():
    labels, predictions = example()
    with pytest.raises(ConfigError, match="false_positive"):
        boundary_negatives(
            labels, predictions, lottery_for(labels.shape), num_classes=2, error="false_postive"
        )
