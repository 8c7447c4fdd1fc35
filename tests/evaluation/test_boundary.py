import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelcontrast.evaluation import ConfusionMatrix, near_boundary


def slow(labels, distance):
    """Every pixel against every other."""
    height, width = labels.shape
    found = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            for v in range(height):
                for u in range(width):
                    near = (y - v) ** 2 + (x - u) ** 2 <= distance**2
                    found[y, x] |= near and labels[y, x] != labels[v, u]
    return found


def test_a_straight_edge_by_hand():
    row = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]], dtype=torch.uint8)
    assert near_boundary(row, 1).int().tolist() == [[0, 0, 0, 1, 1, 0, 0, 0]]
    assert near_boundary(row, 2.9).int().tolist() == [[0, 0, 1, 1, 1, 1, 0, 0]]
    assert near_boundary(row, 3).int().tolist() == [[0, 1, 1, 1, 1, 1, 1, 0]]


def test_distances_are_euclidean():
    point = torch.zeros(5, 5, dtype=torch.uint8)
    point[2, 2] = 3
    cross = [[0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]
    assert near_boundary(point, 1).int().tolist() == cross
    assert int(near_boundary(point, 1.5).sum()) == 9
    assert int(near_boundary(point, 2).sum()) == 13


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 99),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    distance=st.floats(1, 5),
)
def test_against_every_pair(seed, height, width, distance):
    labels = np.random.default_rng(seed).integers(0, 3, (height, width)) ** 3
    found = near_boundary(torch.from_numpy(labels)[None], distance)
    assert found.shape == (1, height, width)
    assert np.array_equal(found[0].numpy(), slow(labels, distance))


def test_unlabelled_pixels_are_a_region_and_the_image_border_is_none():
    labels = torch.zeros(1, 4, 6, dtype=torch.uint8)
    assert not bool(near_boundary(labels, 3).any())
    labels[:, :, 0] = 255
    assert near_boundary(labels, 1)[0].int().tolist() == [[1, 1, 0, 0, 0, 0]] * 4


def test_the_score_of_the_band_by_hand():
    truth = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]], dtype=torch.uint8)
    guess = torch.tensor([[1, 0, 0, 0, 0, 1, 1, 1]], dtype=torch.uint8)
    counts = ConfusionMatrix(2)
    counts.update(guess, truth.masked_fill(~near_boundary(truth, 2), 255))
    # Pixels 2 to 5 count: classes 0 0 1 1 are taken for 0 0 0 1.
    assert counts.scores().iou == (pytest.approx(2 / 3), pytest.approx(1 / 2))


def test_a_distance_no_pixel_has_is_refused():
    with pytest.raises(ValueError, match="1 pixel"):
        near_boundary(torch.zeros(2, 2), 0.5)
