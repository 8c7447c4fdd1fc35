"""K-means against a slow form, against scikit-learn, and where data are degenerate."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelcontrast.core.errors import TrainingError
from pixelcontrast.memory import lloyd, nearest
from pixelcontrast.memory.lloyd import split_into_empty


def drawn(rows, dim, seed=0):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def slow_nearest(rows, centroids):
    return (rows.double()[:, None] - centroids.double()).square().sum(2).argmin(1)


def slow_lloyd(rows, centroids, iterations):
    """Lloyd in float64, one cluster after the other; empty ones stay."""
    rows, centroids = rows.double(), centroids.double().clone()
    for _ in range(iterations):
        labels = slow_nearest(rows, centroids)
        for k in range(len(centroids)):
            if (labels == k).any():
                centroids[k] = rows[labels == k].mean(0)
    return centroids, slow_nearest(rows, centroids)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 20), st.integers(0, 99))
def test_nearest_is_the_least_distance(rows, dim, clusters, seed):
    points, centroids = drawn(rows, dim, seed), drawn(clusters, dim, seed + 100)
    labels = nearest(points, centroids)
    distances = (points.double()[:, None] - centroids.double()).square().sum(2)
    best = distances.min(1).values
    torch.testing.assert_close(distances[torch.arange(rows), labels], best, rtol=1e-5, atol=1e-5)


def test_a_tie_goes_to_the_lower_number():
    labels = nearest(torch.zeros(3, 2), torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0]]))
    assert labels.tolist() == [0, 0, 0]


def test_nearest_differs_from_the_largest_product():
    # labels by distance and by the product with centroids of other lengths: two rules
    rows = torch.tensor([[1.0, 0.0]])
    centroids = torch.tensor([[0.9, 0.0], [0.95, 0.6]])
    assert nearest(rows, centroids).item() == 0
    assert (rows @ centroids.T).argmax().item() == 1
    assert nearest(rows, F.normalize(centroids, dim=1), spherical=True).item() == 0


def test_spherical_labels_are_those_of_a_cosine_classifier_also_with_a_zero_centroid():
    rows, centroids = F.normalize(drawn(500, 6), dim=1), F.normalize(drawn(5, 6, 1), dim=1)
    centroids[2] = 0
    assert torch.equal(nearest(rows, centroids, spherical=True), (rows @ centroids.T).argmax(1))
    assert (nearest(rows, centroids, spherical=True) == 2).any()


@pytest.mark.parametrize(("rows", "dim", "clusters"), [(5000, 8, 7), (300, 3, 16), (40, 2, 2)])
def test_lloyd_is_the_slow_form(rows, dim, clusters):
    points = drawn(rows, dim)
    found = lloyd(points, points[:clusters], 20)
    centroids, labels = slow_lloyd(points, points[:clusters], 20)
    torch.testing.assert_close(found.means, centroids.float(), rtol=1e-4, atol=1e-4)
    assert torch.equal(found.counts, labels.bincount(minlength=clusters))
    distance = (points.double() - centroids[labels]).square().sum(1).mean()
    torch.testing.assert_close(found.distance, distance, rtol=1e-4, atol=0)


def test_lloyd_is_that_of_scikit_learn():
    cluster = pytest.importorskip("sklearn.cluster")
    blobs = 3 * drawn(9, 16, 1)[torch.arange(4000) % 9] + drawn(4000, 16)
    start = blobs[:9].clone()
    start[8] = blobs[17]  # two starts within one blob
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = cluster.KMeans(9, init=start.numpy(), n_init=1, max_iter=20, tol=0)
        expected.fit(blobs.numpy())
    found = lloyd(blobs, start, 20)
    centres = torch.from_numpy(expected.cluster_centers_).float()
    torch.testing.assert_close(found.means, centres, rtol=0, atol=1e-4)
    assert nearest(blobs, found.means).tolist() == expected.labels_.tolist()
    assert float(found.distance) == pytest.approx(expected.inertia_ / 4000, rel=1e-4)


def test_spherical_lloyd_is_the_slow_form():
    rows = F.normalize(drawn(600, 5), dim=1)
    found = lloyd(rows, rows[:6], 15, spherical=True)
    wide = rows.double()
    unit = wide[:6]
    for _ in range(15):
        labels = (wide @ unit.T).argmax(1)
        means = torch.stack([wide[labels == k].mean(0) for k in range(6)])
        unit = F.normalize(means, dim=1)
    torch.testing.assert_close(found.means, means.float(), rtol=0, atol=1e-5)
    labels = (wide @ unit.T).argmax(1)
    assert torch.equal(found.counts, labels.bincount(minlength=6))
    distance = (wide - unit[labels]).square().sum(1).mean()
    torch.testing.assert_close(found.distance, distance, rtol=1e-4, atol=0)


def test_no_iteration_only_counts():
    rows = drawn(50, 3)
    start = torch.cat([rows[:2], torch.full((1, 3), 99.0)])
    found = lloyd(rows, start, 0)
    assert torch.equal(found.means, start)
    assert found.counts[2] == 0
    assert found.counts.sum() == 50


@pytest.mark.parametrize("spherical", [False, True])
def test_empty_clusters_are_filled(spherical):
    rows = drawn(400, 4)
    rows = F.normalize(rows, dim=1) if spherical else rows
    start = rows[:1].repeat(9, 1)  # one cluster takes everything at first
    found = lloyd(rows, start, 5, spherical=spherical)
    assert (found.counts > 0).all()
    centroids = F.normalize(found.means, dim=1) if spherical else found.means
    assert torch.equal(
        found.counts, nearest(rows, centroids, spherical=spherical).bincount(minlength=9)
    )


def test_equal_rows_are_not_split():
    # the largest cluster is one point (the black border of a photograph); the other can be split
    rows = torch.cat([torch.full((300, 2), 5.0), drawn(60, 2)])
    found = lloyd(rows, torch.tensor([[5.0, 5.0], [0.0, 0.0], [50.0, 50.0], [60.0, 60.0]]), 3)
    assert (found.counts > 0).all()
    assert found.counts.max() == 300


def test_fewer_points_than_clusters_leaves_some_empty():
    rows = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(30, 1)
    found = lloyd(rows, rows[:5], 8)
    assert sorted(found.counts.tolist()) == [0, 0, 0, 30, 30]
    assert found.means.isfinite().all()
    assert float(found.distance) < 1e-6
    constant = lloyd(torch.zeros(40, 3), torch.zeros(2, 3), 4, spherical=True)
    assert constant.counts.sum() == 40
    assert constant.means.isfinite().all()


def test_the_largest_clusters_share_with_the_empty_ones():
    means = torch.arange(1.0, 7)[:, None] * torch.ones(6, 2)
    counts = torch.tensor([5, 0, 100, 0, 40, 0])
    split = split_into_empty(means, counts, counts > 0)
    step = 1 / 1024
    up, down = torch.tensor([1 + step, 1 - step]), torch.tensor([1 - step, 1 + step])
    torch.testing.assert_close(split[1], 3 * up)
    torch.testing.assert_close(split[3], 5 * up)
    # the third empty one: half a round later the largest is again a part of cluster 2
    torch.testing.assert_close(split[5], 1 * up)
    torch.testing.assert_close(split[2], 3 * down)
    assert torch.equal(split_into_empty(means, counts, torch.zeros(6, dtype=torch.bool)), means)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_rows_that_are_not_finite_stop_the_run(value):
    rows = drawn(100, 3)
    rows[50, 1] = value
    with pytest.raises(TrainingError, match="not finite"):
        lloyd(rows, rows[:4], 3, where="street.png")


def test_half_precision_store_and_autocast():
    rows = drawn(3000, 8)
    stored = rows.bfloat16()
    exact, half = lloyd(rows, rows[:6], 10), lloyd(stored, rows[:6], 10)
    assert float(half.distance) == pytest.approx(float(exact.distance), rel=2e-2)
    assert half.means.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        same = lloyd(rows, rows[:6], 10)
    assert torch.equal(same.means, exact.means)
