import math

import pytest
import torch
import torch.nn.functional as F
from tests.gloo import two_processes

from pixelcontrast.losses import (
    image_weighted_consistency,
    masked_consistency,
    pixel_cross_entropy,
    reweighted_consistency,
    squared_consistency,
)


def problem(seed=0):
    """Student logits at half size, pseudo-labels, kept and valid pixels of 4 images."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 3, 5, 6, generator=g)
    labels = torch.randint(0, 3, (4, 10, 12), generator=g)
    valid = torch.rand(4, 10, 12, generator=g) > 0.2
    keep = (torch.rand(4, 10, 12, generator=g) > 0.6) & valid
    keep[1] = False
    return logits, labels, keep, valid


def by_loops(logits, labels, align_corners=False):
    """Cross-entropy of every pixel in float64."""
    full = F.interpolate(
        logits.double(), labels.shape[1:], mode="bilinear", align_corners=align_corners
    )
    return -full.log_softmax(1).gather(1, labels[:, None])[:, 0]


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_three_means_equal_their_formulas(align_corners):
    logits, labels, keep, valid = problem()
    ce = by_loops(logits, labels, align_corners)
    options = {"align_corners": align_corners}
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(pixel_cross_entropy(logits, labels, **options).double(), ce, **close)
    torch.testing.assert_close(
        masked_consistency(logits, labels, keep, valid, **options).double(),
        ce[keep].sum() / valid.sum(),
        **close,
    )
    torch.testing.assert_close(
        reweighted_consistency(logits, labels, keep, **options).double(),
        keep.numel() / keep.sum() * ce[keep].mean(),
        **close,
    )
    total = sum(ce[b][valid[b]].sum() * keep[b].sum() / valid[b].sum() for b in range(len(labels)))
    torch.testing.assert_close(
        image_weighted_consistency(logits, labels, keep, valid, **options).double(),
        total / valid.sum(),
        **close,
    )
    target = torch.randn(4, 3, 10, 12, generator=torch.Generator().manual_seed(1)).softmax(1)
    full = F.interpolate(logits.double(), (10, 12), mode="bilinear", **options)
    distance = (full.softmax(1) - target).square().sum(1)
    torch.testing.assert_close(
        squared_consistency(logits, target, valid, **options).double(),
        distance[valid].mean(),
        **close,
    )


def test_values_of_the_specifications():
    student = torch.zeros(1, 2, 1, 2)
    labels = torch.zeros(1, 1, 2, dtype=torch.long)
    valid = torch.ones(1, 1, 2, dtype=torch.bool)
    keep = torch.tensor([[[True, False]]])
    found = masked_consistency(student, labels, keep, valid)
    assert found.item() == pytest.approx(math.log(2) / 2)
    # An ignored pixel counts neither above nor below the line, whatever `keep` says.
    hidden = torch.tensor([[[True, False]]])
    found = masked_consistency(student, labels, torch.ones_like(hidden), hidden)
    assert found.item() == pytest.approx(math.log(2))
    # U2PL: four of eight pixels kept, weight 2.
    keep = torch.tensor([True] * 4 + [False] * 4).view(1, 2, 4)
    student, labels = torch.zeros(1, 2, 2, 4), torch.zeros(1, 2, 4, dtype=torch.long)
    found = reweighted_consistency(student, labels, keep)
    assert found.item() == pytest.approx(1.38629, abs=1e-5)
    # PRCL: the confident half of the image weights all of it.
    found = image_weighted_consistency(student, labels, keep, torch.ones_like(keep))
    assert found.item() == pytest.approx(math.log(2) / 2)


def test_nothing_kept_is_a_zero_in_the_graph():
    logits, labels, _, valid = problem()
    none = torch.zeros_like(valid)
    for loss in (
        lambda x: masked_consistency(x, labels, none, valid),
        lambda x: masked_consistency(x, labels, none, none),
        lambda x: reweighted_consistency(x, labels, none),
        lambda x: image_weighted_consistency(x, labels, none, valid),
        lambda x: image_weighted_consistency(x, labels, none, none),
        lambda x: squared_consistency(x, torch.zeros(4, 3, 10, 12), none),
    ):
        leaf = logits.clone().requires_grad_()
        value = loss(leaf)
        value.backward()
        assert value.item() == 0.0
        assert leaf.grad.abs().sum() == 0


def test_labels_outside_the_classes_do_no_harm_where_they_are_not_kept():
    logits, labels, keep, valid = problem()
    expected = masked_consistency(logits, labels, keep, valid)
    assert torch.equal(
        masked_consistency(logits, labels.masked_fill(~keep, 255), keep, valid), expected
    )


def losses(logits, labels, keep, valid):
    return torch.stack(
        [
            masked_consistency(logits, labels, keep, valid),
            reweighted_consistency(logits, labels, keep),
            image_weighted_consistency(logits, labels, keep, valid),
        ]
    )


def in_halves(rank):
    parts = [part[2 * rank : 2 * rank + 2] for part in problem()]
    leaf = parts[0].requires_grad_()
    values = losses(leaf, *parts[1:])
    gradients = [torch.autograd.grad(v, leaf, retain_graph=True)[0].numpy() for v in values]
    return [values.detach().numpy(), gradients]


def test_two_processes_average_to_one():
    logits, labels, keep, valid = problem()
    logits.requires_grad_()
    values = losses(logits, labels, keep, valid)
    halves = two_processes(in_halves)
    found = torch.from_numpy(halves[0][0] + halves[1][0]) / 2
    torch.testing.assert_close(found, values.detach(), rtol=1e-5, atol=1e-6)
    for place, value in enumerate(values):
        expected = torch.autograd.grad(value, logits, retain_graph=True)[0]
        parts = torch.cat([torch.from_numpy(half[1][place]) for half in halves]) / 2
        torch.testing.assert_close(parts, expected, rtol=1e-4, atol=1e-7)
