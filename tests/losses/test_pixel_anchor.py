from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.losses import pixel_anchor_loss

IGNORE = 255


def case(seed=0, batch=2, dim=5, size=(4, 6), classes=4, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(batch, dim, *size, generator=g, dtype=dtype), dim=1)
    labels = torch.randint(0, classes - 1, (batch, *size), generator=g)  # one class is absent
    labels[:, 0] = IGNORE
    negatives = torch.rand(batch, classes, *size, generator=g) < 0.2
    negatives &= labels[:, None] != torch.arange(classes)[:, None, None]
    negatives &= (labels != IGNORE)[:, None]
    negatives[:, 1] = False  # one class has none
    anchors = F.normalize(torch.randn(classes, dim, generator=g, dtype=dtype), dim=1)
    return anchors, z, labels, negatives


def slow(anchors, z, labels, negatives, tau):
    """Equations 5 and 6, one class and one positive after the other."""
    pixels = z.permute(0, 2, 3, 1)
    values = []
    for n, anchor in enumerate(anchors):
        positives = pixels[labels == n]
        if len(positives) == 0:
            continue
        others = ((pixels[negatives[:, n]] @ anchor) / tau).exp().sum()
        each = [(p @ anchor / tau).exp() for p in positives]
        values.append(torch.stack([-(e / (e + others)).log() for e in each]).mean())
    return torch.stack(values).mean()


@pytest.mark.parametrize("tau", [0.1, 0.5, 1.0])
def test_value_and_gradients_are_those_of_the_formula(tau):
    anchors, z, labels, negatives = case()
    leaves = [t.clone().requires_grad_() for t in (anchors, z)]
    found = pixel_anchor_loss(*leaves, labels, negatives, temperature=tau).loss
    gradients = torch.autograd.grad(found, leaves)
    twins = [t.clone().requires_grad_() for t in (anchors, z)]
    expected = slow(*twins, labels, negatives, tau)
    wanted = torch.autograd.grad(expected, twins)
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other)


def line(vectors):
    """(1, D, P) map of a list of vectors."""
    return torch.tensor(vectors).T[None]


@pytest.mark.parametrize(
    ("tau", "positives", "negatives", "expected"),
    [
        (1.0, [(1.0, 0.0), (0.0, 1.0)], [(0.0, 1.0)], 0.50320443),
        (0.1, [(1.0, 0.0), (0.6, 0.8)], [(0.8, 0.6), (0.0, 1.0), (-1.0, 0.0)], 1.12709573),
        (0.1, [(1.0, 0.0)], [], 0.0),
    ],
)
def test_worked_examples(tau, positives, negatives, expected):
    """Check 2 of the specification."""
    z = line(positives + negatives)
    labels = torch.tensor([[0] * len(positives) + [1] * len(negatives)])
    mask = torch.zeros(1, 1, z.shape[2], dtype=torch.bool)
    mask[0, 0, len(positives) :] = True
    anchors = torch.tensor([[1.0, 0.0]])
    found = pixel_anchor_loss(anchors, z, labels, mask, temperature=tau).loss
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_similarities_are_plain_means():
    anchors, z, labels, negatives = case()
    found = pixel_anchor_loss(anchors, z, labels, negatives, temperature=0.2)
    similarity = torch.einsum("cd,bdhw->bchw", anchors, z)
    member = labels[:, None] == torch.arange(4)[:, None, None]
    torch.testing.assert_close(found.positive_similarity, similarity[member].mean())
    torch.testing.assert_close(found.negative_similarity, similarity[negatives].mean())
    assert not found.positive_similarity.requires_grad


@pytest.mark.parametrize("tau", [0.07, 0.1])
def test_each_class_lies_within_its_bounds(tau):
    """Guarantee (c): 0 <= L <= 2 / tau + log(1 + number of negatives)."""
    z = line([(-1.0, 0.0)] * 3 + [(1.0, 0.0)] * 50)
    labels = torch.tensor([[0] * 3 + [1] * 50])
    mask = (labels == 1)[:, None]
    worst = pixel_anchor_loss(torch.tensor([[1.0, 0.0]]), z, labels, mask, temperature=tau).loss
    bound = 2 / tau + math.log(51)
    assert 0 < worst.item() <= bound
    assert worst.item() > bound - 0.1
    best = pixel_anchor_loss(-torch.tensor([[1.0, 0.0]]), z, labels, mask, temperature=tau).loss
    assert 0 <= best.item() < 1e-3


def test_order_of_pixels_and_classes_does_not_matter():
    anchors, z, labels, negatives = (t.flatten(2) if t.dim() > 3 else t for t in case())
    labels = labels.flatten(1)
    expected = pixel_anchor_loss(anchors, z, labels, negatives).loss
    pixel = torch.randperm(z.shape[2], generator=torch.Generator().manual_seed(1))
    found = pixel_anchor_loss(anchors, z[..., pixel], labels[:, pixel], negatives[..., pixel]).loss
    torch.testing.assert_close(found, expected)
    order = torch.tensor([2, 0, 3, 1])
    renamed = torch.where(labels == IGNORE, IGNORE, order.argsort()[labels.clamp(max=3)])
    found = pixel_anchor_loss(anchors[order], z, renamed, negatives[:, order]).loss
    torch.testing.assert_close(found, expected)


def test_ignored_pixels_get_no_gradient():
    anchors, z, labels, negatives = case()
    z.requires_grad_()
    pixel_anchor_loss(anchors, z, labels, negatives).loss.backward()
    per_pixel = z.grad.abs().sum(1)
    assert (per_pixel[labels == IGNORE] == 0).all()
    assert (per_pixel[labels == 0] > 0).all()


@pytest.mark.parametrize("what", ["ignored", "no negatives", "no class"])
def test_nothing_to_compare_is_zero_with_a_finite_gradient(what):
    anchors, z, labels, negatives = case(dtype=torch.float32)
    if what == "no negatives":
        negatives = torch.zeros_like(negatives)
    else:
        labels = torch.full_like(labels, IGNORE if what == "ignored" else -1)
    leaves = [t.requires_grad_() for t in (anchors, z)]
    loss = pixel_anchor_loss(*leaves, labels, negatives).loss
    assert loss.item() == 0.0
    for gradient in torch.autograd.grad(loss, leaves):
        assert torch.count_nonzero(gradient) == 0


def test_autocast_and_low_precision_compute_in_float32():
    anchors, z, labels, negatives = case(dtype=torch.float32)
    exact = pixel_anchor_loss(anchors, z, labels, negatives, temperature=0.01).loss
    with torch.autocast("cpu", torch.bfloat16):
        found = pixel_anchor_loss(anchors, z, labels, negatives, temperature=0.01).loss
    assert torch.equal(found, exact)
    half = pixel_anchor_loss(anchors, z.half(), labels, negatives, temperature=0.01).loss
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=1e-2, atol=0)


def test_temperature_must_be_positive():
    with pytest.raises(ConfigError, match="temperature"):
        pixel_anchor_loss(*case(), temperature=0.0)
