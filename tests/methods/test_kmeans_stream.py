from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.memory import MiniBatchKMeans
from pixelcontrast.methods.kmeans_stream import (
    KMeansConfig,
    KMeansStream,
    highest_rows,
    rows_of,
)

IDS = [f"image{n}" for n in range(6)]


def maps(seed=0, width=5):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(6, width, 4, 4, generator=generator), dim=1)


def clustered(features, bounds=None, clusters=3, **options):
    """One view, in batches between `bounds`."""
    bounds = bounds or (0, len(features))
    means = MiniBatchKMeans(clusters, features.shape[1], spherical=True)
    options = KMeansConfig(**{"init_batches": 1, "iterations": 4, **options})
    stream = KMeansStream([[means]], options, images=6, seed=0, epoch=0)
    for first, last in pairwise(bounds):
        stream.add(IDS[first:last], (features[first:last],))
    stream.finish()
    return means


def test_rows_are_pixels():
    features = maps()
    rows = rows_of(features)
    assert torch.equal(rows[1 * 16 + 2 * 4 + 3], features[1, :, 2, 3])


def test_the_first_batches_are_clustered_whole_and_the_others_move_the_means():
    features = maps()
    found = clustered(features, (0, 2, 4, 5, 6), init_batches=2, group=2)
    plain = MiniBatchKMeans(3, 5, spherical=True)
    start = clustered(features[:4], iterations=0).centroids
    plain.start(rows_of(features[:4]), init=start, iterations=4)
    torch.testing.assert_close(clustered(features[:4]).centroids, plain.centroids)
    plain.update(rows_of(features[4:]))
    torch.testing.assert_close(found.centroids, plain.centroids)
    assert found.counts.sum() == 6 * 16


def test_a_last_group_that_is_not_full_counts():
    found = clustered(maps(), (0, 2, 4, 6), group=5)
    assert found.counts.sum() == 6 * 16


def test_pixels_are_drawn_alike_however_images_are_batched():
    options = {"init_batches": 3, "init_pixels": 30}
    whole = clustered(maps(), (0, 6), **options)
    parts = clustered(maps(), (0, 1, 4, 6), **options)
    assert whole.counts.sum() == 30
    torch.testing.assert_close(parts.centroids, whole.centroids)


def test_the_tightest_of_several_beginnings_stays():
    once = [float(clustered(maps(seed), clusters=8, iterations=8).loss) for seed in range(5)]
    often = [
        float(clustered(maps(seed), clusters=8, iterations=8, restarts=6).loss) for seed in range(5)
    ]
    assert all(b <= a for a, b in zip(once, often, strict=True))
    assert sum(often) < 0.98 * sum(once)


def test_few_pixels_are_begun_from_once():
    features = maps()[:1, :, :2, :2]
    means = MiniBatchKMeans(3, 5, spherical=True)
    stream = KMeansStream([[means]], KMeansConfig(restarts=4), images=1, seed=0, epoch=0)
    stream.add(IDS[:1], (features,))
    stream.finish()
    assert means.counts.sum() == 4
    with pytest.raises(DataError, match=r"5 clusters need .* there are 4"):
        clustered(features, clusters=5)


def test_the_rows_with_the_highest_keys():
    rows = torch.arange(8.0).view(4, 2)
    keys = torch.tensor([0.1, 0.9, 0.3, 0.5], dtype=torch.float64)
    assert highest_rows(rows, keys, 2).tolist() == [[2, 3], [6, 7]]
    assert len(highest_rows(rows, keys, 9)) == 4


@pytest.mark.parametrize("name", ["batch", "init_batches", "restarts", "group", "init_pixels"])
def test_settings_that_cannot_work(name):
    with pytest.raises(ConfigError, match="at least 1"):
        KMeansConfig(**{name: 0})
    with pytest.raises(ConfigError, match="negative"):
        KMeansConfig(iterations=-1)
