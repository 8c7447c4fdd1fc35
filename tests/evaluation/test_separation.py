import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelcontrast.evaluation.separation import (
    alignment_bounds,
    centre_distances,
    distance_row_sums,
    mean_distance,
    neighbourhood_uniformity,
    sampled_mean_distance,
    uniformity,
)


def unit(count, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=1)


def slow_distances(vectors):
    """Every pair by its difference."""
    return torch.stack([(vectors - row).norm(dim=1) for row in vectors])


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 40), width=st.integers(1, 9), block=st.integers(1, 17))
def test_blocks_give_the_double_sum(count, width, block):
    vectors = unit(count, width, seed=count)
    expected = slow_distances(vectors).sum(1)
    sums = distance_row_sums(vectors, block_rows=block)
    # Vectors of width 1 coincide, where rounding of 2 - 2 v.w is worth 2e-8.
    torch.testing.assert_close(sums, expected, rtol=0, atol=1e-7)


def test_the_diagonal_belongs_to_the_definition():
    right_angle = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert mean_distance(right_angle) == pytest.approx(math.sqrt(2) / 2, abs=1e-12)
    assert mean_distance(torch.tensor([[-1.0, 0.0], [-1.0, 0.0]])) == 0.0


def test_length_does_not_count():
    vectors = unit(20, 4)
    assert mean_distance(vectors * torch.arange(1, 21)[:, None]) == pytest.approx(
        mean_distance(vectors), abs=1e-12
    )


def test_close_vectors_keep_their_digits():
    base = unit(1, 64)
    near = torch.nn.functional.normalize(base + 1e-5 * unit(50, 64, seed=1), dim=1)
    expected = float(slow_distances(near).mean())
    assert mean_distance(near) == pytest.approx(expected, rel=1e-5)


def test_the_whole_class_is_exact():
    vectors = unit(30, 5)
    mean, error = sampled_mean_distance(vectors, 30)
    assert mean == pytest.approx(mean_distance(vectors), abs=1e-12)
    assert error == 0.0


def test_one_feature_and_samples_too_small():
    assert sampled_mean_distance(unit(1, 3), 1) == (0.0, 0.0)
    assert all(map(math.isnan, sampled_mean_distance(unit(1, 3), 9)))


def test_the_standard_error_is_the_spread_of_repeated_samples():
    population = unit(4000, 3, seed=3) + torch.tensor([0.6, 0.0, 0.0], dtype=torch.float64)
    exact = mean_distance(population)
    found = []
    for seed in range(60):
        order = torch.randperm(4000, generator=torch.Generator().manual_seed(seed))
        found.append(sampled_mean_distance(population[order[:200]], 4000))
    means = torch.tensor([mean for mean, _ in found])
    errors = torch.tensor([error for _, error in found])
    assert abs(float(means.mean()) - exact) < 4 * float(means.std()) / math.sqrt(60)
    assert float(errors.mean()) == pytest.approx(float(means.std()), rel=0.3)


def test_uniformity_by_hand():
    centres = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    u = (2 * 2 * math.sqrt(2) + 2 * 2) / 6
    assert uniformity(centres) == pytest.approx(u, abs=1e-12)
    assert u == pytest.approx(1.6094757, abs=1e-7)
    assert neighbourhood_uniformity(centres, 1) == pytest.approx(math.sqrt(2), abs=1e-12)
    assert neighbourhood_uniformity(centres, 2) == uniformity(centres)


@pytest.mark.parametrize("count", [2, 3, 19, 21])
def test_a_regular_simplex_reaches_the_upper_bound(count):
    corners = torch.eye(count, dtype=torch.float64) - 1 / count
    corners = torch.nn.functional.normalize(corners, dim=1)
    assert uniformity(corners) == pytest.approx(math.sqrt(2 * count / (count - 1)), abs=1e-12)


def test_one_class_has_no_uniformity():
    assert math.isnan(uniformity(unit(1, 4)))
    assert math.isnan(neighbourhood_uniformity(unit(1, 4), 5))


@pytest.mark.parametrize("neighbours", [0, 4, 7])
def test_more_neighbours_than_classes_are_refused(neighbours):
    with pytest.raises(ValueError, match="between 1 and 3 for 4 classes"):
        neighbourhood_uniformity(unit(4, 6), neighbours)


def test_near_classes_lower_the_neighbourhood():
    centres = unit(12, 5)
    values = [neighbourhood_uniformity(centres, n) for n in range(1, 12)]
    assert values == sorted(values)
    distances = centre_distances(centres)
    torch.testing.assert_close(distances, slow_distances(centres), rtol=0, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 30), width=st.integers(1, 6), shift=st.floats(0, 4))
def test_bounds_hold(count, width, shift):
    vectors = unit(count, width, seed=7)
    vectors = torch.nn.functional.normalize(vectors + shift * vectors[:1], dim=1)
    if not bool(vectors.norm(dim=1).gt(0.5).all()):
        return
    resultant = float(vectors.mean(0).norm())
    low, high = alignment_bounds(resultant)
    assert low - 1e-9 <= mean_distance(vectors) <= high + 1e-7
