"""Losses against clusters: by hand, against plain loops, and for labels without weight."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gloo import two_processes

from pixelcontrast.losses import (
    ClusterView,
    cluster_weights,
    mixture_factors,
    picie_loss,
    prototype_cross_entropy,
    prototype_logits,
    weighted_cross_entropy,
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels_for(*shape, clusters=5, seed=0):
    return torch.randint(0, clusters, shape, generator=torch.Generator().manual_seed(seed))


def views(seed=0, clusters=(5, 5), size=(2, 6, 3, 4)):
    return tuple(
        ClusterView(
            drawn(*size, seed=seed + i).requires_grad_(),
            labels_for(size[0], *size[2:], clusters=k, seed=seed + i),
            0.7 * drawn(k, size[1], seed=seed + 10 + i),
            torch.rand(k, generator=torch.Generator().manual_seed(seed + 20 + i)) + 0.1,
        )
        for i, k in enumerate(clusters)
    )


def test_one_pixel_by_hand():
    eye, one = torch.eye(2), torch.ones(2)
    first = ClusterView(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), torch.tensor([[[0]]]), eye, one)
    second = ClusterView(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1), torch.tensor([[[1]]]), eye, one)
    loss = picie_loss(first, second)
    same, other = math.log(1 + math.exp(-1)), math.log(1 + math.e)
    found = [float(x) for x in (loss.l11, loss.l22, loss.l12, loss.l21)]
    assert found == pytest.approx([same, same, other, other], rel=1e-6)
    assert float(loss.total) == pytest.approx(0.813262, abs=1e-6)
    assert float(loss.within) == pytest.approx(0.313262, abs=1e-6)
    assert float(loss.cross) == pytest.approx(1.313262, abs=1e-6)


@pytest.mark.parametrize(
    ("counts", "balance", "expected"),
    [
        ((6, 3, 1), "frequency", (0.6, 0.3, 0.1)),
        ((6, 3, 1), "none", (1, 1, 1)),
        ((6, 3, 1), "inverse", (0.5556, 1.1111, 3.3333)),
        ((6, 3, 1), "inverse_sqrt", (1.2910, 1.8257, 3.1623)),
        ((6, 0, 4), "inverse", (0.8333, 0, 1.25)),
        ((6, 0, 4), "inverse_sqrt", (1.2910, 0, 1.5811)),
        ((1000, 1), "inverse", (0.5005, 50.05)),  # clipped at 100 times
        ((0, 0), "frequency", (0, 0)),
        ((0, 0), "inverse", (0, 0)),
        ((0, 0), "inverse_sqrt", (0, 0)),
    ],
)
def test_weights(counts, balance, expected):
    weights = cluster_weights(torch.tensor(counts), balance)
    assert weights.tolist() == pytest.approx(expected, abs=6e-5)
    assert weights.dtype == torch.float32


@pytest.mark.parametrize(
    ("balance", "shares"),
    [("frequency", (0.783, 0.196, 0.022)), ("none", (0.6, 0.3, 0.1)), ("inverse", (1 / 3,) * 3)],
)
def test_shares_of_the_loss(balance, shares):
    counts = torch.tensor([6, 3, 1])
    weighted = cluster_weights(counts, balance) * counts
    assert (weighted / weighted.sum()).tolist() == pytest.approx(shares, abs=6e-4)


@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_cross_entropy_is_the_plain_loop(cosine, temperature):
    view, _ = views()
    labels = view.labels.clone()
    labels[0, 0, 0] = -1
    loss = prototype_cross_entropy(
        view.features,
        view.centroids,
        labels,
        view.weights,
        temperature=temperature,
        normalise_centroids=cosine,
    )
    total = weight = 0.0
    rows = F.normalize(view.centroids, dim=1) if cosine else view.centroids
    for b, y, x in (labels >= 0).nonzero().tolist():
        pixel = view.features[b, :, y, x].double()
        scores = rows.double() @ (pixel / pixel.norm()) / temperature
        label = int(labels[b, y, x])
        total += float(view.weights[label]) * -scores.log_softmax(0)[label]
        weight += float(view.weights[label])
    torch.testing.assert_close(loss.double(), total / weight, rtol=1e-5, atol=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 6), st.integers(2, 9), st.booleans(), st.integers(0, 99))
def test_terms_sum_to_the_formula(first, second, mse, seed):
    one, two = views(seed, clusters=(first, second))
    loss = picie_loss(one, two, mse=mse, temperature=0.5)

    def against(view, other):
        return prototype_cross_entropy(
            view.features, other.centroids, other.labels, other.weights, temperature=0.5
        )

    within = (against(one, one) + against(two, two)) / 2
    cross = (against(one, two) + against(two, one)) / 2
    expected = (within + cross) / 2
    if mse:
        unit = [F.normalize(view.features, dim=1) for view in (one, two)]
        expected = (expected + F.mse_loss(*unit)) / 2
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(sum(loss.terms.values()), loss.total)
    assert ("mse" in loss.terms) == mse


def test_gradient_reaches_both_views_and_no_centroid():
    one, two = views()
    centroids = one.centroids.requires_grad_()
    terms = picie_loss(one, two)
    for term in (terms.l12, terms.l21):
        grads = torch.autograd.grad(
            term, [one.features, two.features, centroids], allow_unused=True, retain_graph=True
        )
        assert sum(g is not None and bool(g.any()) for g in grads[:2]) == 1
        assert grads[2] is None


@pytest.mark.parametrize("weights", [torch.zeros(5), torch.tensor([1.0, 0, 0, 0, 0])])
def test_no_weight_gives_a_zero_on_the_graph(weights):
    features = drawn(2, 6, 3, 4).requires_grad_()
    labels = torch.full((2, 3, 4), 3)
    loss = prototype_cross_entropy(features, drawn(5, 6, seed=1), labels, weights)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not features.grad.any()


def test_zero_features_and_unlabelled_pixels_stay_finite():
    features = torch.zeros(1, 6, 2, 2, requires_grad=True)
    loss = prototype_cross_entropy(
        features, drawn(5, 6), torch.tensor([[[0, 1], [-1, 4]]]), torch.ones(5)
    )
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(5))
    assert features.grad.isfinite().all()


def test_float32_under_autocast():
    one, two = views()
    with torch.autocast("cpu", torch.bfloat16):
        inside = picie_loss(one, two, mse=True).total
        assert prototype_logits(one.features, one.centroids).dtype == torch.float32
    assert torch.equal(inside, picie_loss(one, two, mse=True).total)


def test_the_two_rules_disagree_where_centroids_have_other_lengths():
    pixel = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    centroids = torch.tensor([[0.9, 0.0], [0.95, 0.6]])
    by_product = prototype_logits(pixel, centroids, normalise_centroids=False)
    assert by_product.flatten().tolist() == pytest.approx([0.9, 0.95])
    by_cosine = prototype_logits(pixel, centroids)
    assert by_cosine.flatten().tolist() == pytest.approx([1, 0.8455], abs=1e-4)


def test_equal_views_have_equal_within_and_cross():
    one, _ = views()
    loss = picie_loss(one, one, mse=True)
    assert torch.equal(loss.within, loss.cross)
    assert float(loss.distance.detach()) == 0


@pytest.mark.parametrize(
    ("clusters", "expected"),
    [((27, 100), (0.583, 0.417)), ((8, 8), (0.5, 0.5)), ((2, 16), (0.8, 0.2))],
)
def test_mixture_factors_equalise_the_first_values(clusters, expected):
    factors = mixture_factors(*clusters)
    assert factors == pytest.approx(expected, abs=6e-4)
    coarse, fine = (f * math.log(k) for f, k in zip(factors, clusters, strict=True))
    assert coarse == pytest.approx(fine)
    assert sum(factors) == pytest.approx(1)


def mean_and_gradient(features, labels, weights, divisor):
    leaf = features.clone().requires_grad_()
    loss = weighted_cross_entropy(leaf, labels, weights)
    loss.backward()
    return {"loss": float(loss.detach()), "gradient": (leaf.grad / divisor).numpy()}


SPLIT = 1  # images of the first process, out of 3


def half(rank):
    part = slice(0, SPLIT) if rank == 0 else slice(SPLIT, None)
    features, labels = drawn(3, 5, 2, 2), labels_for(3, 2, 2)
    return mean_and_gradient(features[part], labels[part], torch.arange(1.0, 6), 2)


def test_two_processes_share_the_weighted_mean():
    first, second = two_processes(half)
    one = mean_and_gradient(drawn(3, 5, 2, 2), labels_for(3, 2, 2), torch.arange(1.0, 6), 1)
    assert (first["loss"] + second["loss"]) / 2 == pytest.approx(one["loss"], rel=1e-6)
    both = torch.cat([torch.as_tensor(p["gradient"]) for p in (first, second)])
    torch.testing.assert_close(both, torch.as_tensor(one["gradient"]))
