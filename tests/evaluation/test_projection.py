import pytest
import torch

from pixelcontrast.evaluation import principal_plane, tsne_plane


def cloud(count=90, width=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([5.0, 3.0] + [0.1] * (width - 2))
    return torch.randn(count, width, generator=generator) * scale + 4


def test_the_plane_holds_the_variance_it_says():
    vectors = cloud()
    plane, share = principal_plane(vectors)
    assert plane.shape == (90, 2)
    covariance = torch.cov(vectors.double().T)
    largest = torch.linalg.eigvalsh(covariance).flip(0)
    torch.testing.assert_close(plane.var(dim=0), largest[:2])
    assert share == pytest.approx(float(largest[:2].sum() / largest.sum()))
    assert share > 0.99
    torch.testing.assert_close(plane.mean(dim=0), torch.zeros(2, dtype=torch.float64))


def test_order_does_not_turn_the_picture():
    vectors = cloud()
    plane, _ = principal_plane(vectors)
    torch.testing.assert_close(principal_plane(vectors.flip(0))[0].flip(0), plane)


@pytest.mark.parametrize(("count", "width"), [(1, 4), (2, 1), (5, 1)])
def test_few_vectors_and_narrow_ones(count, width):
    plane, share = principal_plane(torch.arange(float(count * width)).reshape(count, width))
    assert plane.shape == (count, 2)
    assert bool(plane.isfinite().all())
    assert 0 <= share <= 1 + 1e-9


def test_tsne_separates_clusters_and_repeats():
    pytest.importorskip("sklearn")
    vectors = torch.cat([cloud(30), cloud(30, seed=1) + 100])
    plane = tsne_plane(vectors, seed=3)
    assert plane.shape == (60, 2)
    left, right = plane[:30], plane[30:]
    apart = (left.mean(0) - right.mean(0)).norm()
    assert apart > left.std() + right.std()
    torch.testing.assert_close(tsne_plane(vectors, seed=3), plane)
    assert tsne_plane(vectors[:4]) is None
