import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelcontrast.sampling import (
    PseudoLabels,
    confident,
    entropy_threshold,
    pseudo_label_statistics,
    pseudo_labels,
    with_ignore,
)


def everywhere(*size):
    return torch.ones(size, dtype=torch.bool)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(6, 7), (12, 17)])
def test_labels_confidence_and_entropy_equal_the_softmax(size, align_corners):
    logits = 3 * torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    found = pseudo_labels(logits, everywhere(2, *size), align_corners=align_corners, entropy=True)
    full = logits
    if size != (6, 7):
        full = F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)
    p = full.double().softmax(1)
    assert torch.equal(found.labels, p.argmax(1))
    torch.testing.assert_close(found.confidence.double(), p.amax(1), rtol=1e-5, atol=1e-6)
    expected = -(p * p.log()).sum(1)
    torch.testing.assert_close(found.entropy.double(), expected, rtol=1e-5, atol=1e-5)
    assert pseudo_labels(logits, everywhere(2, *size)).entropy is None


def test_extreme_and_broken_scores():
    logits = torch.zeros(1, 3, 1, 4)
    logits[0, :, 0, 0] = torch.tensor([1e4, -1e4, 0.0])
    logits[0, 1, 0, 1] = float("nan")
    logits[0, 2, 0, 2] = float("inf")
    found = pseudo_labels(logits, everywhere(1, 1, 4), entropy=True)
    assert found.valid.tolist() == [[[True, False, False, True]]]
    assert found.confidence[0, 0].tolist() == pytest.approx([1.0, 0.0, 0.0, 1 / 3])
    assert found.entropy[0, 0].tolist() == pytest.approx([0.0, 0.0, 0.0, math.log(3)])
    half = pseudo_labels(logits.bfloat16(), everywhere(1, 1, 4), entropy=True)
    assert half.confidence.dtype == half.entropy.dtype == torch.float32


def test_no_gradient_reaches_the_labels():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    found = pseudo_labels(logits, everywhere(1, 4, 4), entropy=True)
    assert not found.confidence.requires_grad
    assert not found.entropy.requires_grad


def test_confidence_rule_of_the_specification():
    logits = torch.tensor([[4.0, 1.0], [0.0, 0.0]]).view(1, 2, 1, 2)
    found = pseudo_labels(logits, everywhere(1, 1, 2))
    assert found.confidence[0, 0].tolist() == pytest.approx([0.982, 0.731], abs=5e-4)
    assert confident(found, 0.95).tolist() == [[[True, False]]]
    assert confident(found, 0.0).all()


@given(st.integers(1, 60), st.floats(0, 100), st.integers(0, 99))
@settings(deadline=None)
def test_entropy_threshold_is_numpys_percentile(count, percent, seed):
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(rng.random((1, 3, count)))
    valid = torch.from_numpy(rng.random((1, 3, count)) > 0.4)
    found = entropy_threshold(values, valid, percent).item()
    expected = np.percentile(values[valid].numpy(), percent) if valid.any() else 0.0
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_entropy_threshold_interpolates():
    two = torch.tensor([0.0] * 4 + [math.log(2)] * 4).view(1, 2, 4)
    for percent, expected in ((75, math.log(2)), (50, math.log(2) / 2), (40, 0.0)):
        found = entropy_threshold(two, everywhere(1, 2, 4), percent)
        assert found.item() == pytest.approx(expected, abs=1e-6)
    assert entropy_threshold(two, ~everywhere(1, 2, 4), 80).item() == 0.0


def test_ignored_labels():
    labels, keep = torch.tensor([[[1, 2]]]), torch.tensor([[[True, False]]])
    assert with_ignore(labels, keep, 255).tolist() == [[[1, 255]]]


def test_statistics_equal_counting():
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (2, 16, 20), generator=g)
    valid = torch.rand(2, 16, 20, generator=g) > 0.2
    keep = (torch.rand(2, 16, 20, generator=g) > 0.5) & valid
    truth = torch.randint(0, 4, (2, 16, 20), generator=g)
    truth[truth == 3] = 255
    pseudo = PseudoLabels(labels, torch.rand(2, 16, 20, generator=g), valid)
    found = pseudo_label_statistics(pseudo, keep, num_classes=4, truth=truth.to(torch.uint8))
    part = np.s_[:, ::4, ::4]
    kept = keep[part]
    assert found["kept_share"].item() == pytest.approx(kept.sum().item() / valid[part].sum().item())
    confidence = pseudo.confidence[part][valid[part]].mean().item()
    assert found["confidence"].item() == pytest.approx(confidence)
    known = kept & (truth[part] != 255)
    right = known & (truth[part] == labels[part])
    assert found["pseudo_accuracy"].item() == pytest.approx(right.sum().item() / known.sum().item())
    for label in range(3):
        mine = labels[part] == label
        assert found["pseudo_share"][label].item() == pytest.approx(
            (mine & kept).sum().item() / kept.sum().item()
        )
        assert found["pseudo_precision"][label].item() == pytest.approx(
            (mine & right).sum().item() / (mine & known).sum().item()
        )
    assert found["pseudo_share"][3] == 0
    assert found["pseudo_precision"][3].isnan()


def test_statistics_of_nothing_are_zero():
    pseudo = PseudoLabels(torch.zeros(1, 8, 8).long(), torch.zeros(1, 8, 8), ~everywhere(1, 8, 8))
    truth = torch.full((1, 8, 8), 255)
    found = pseudo_label_statistics(pseudo, ~everywhere(1, 8, 8), num_classes=2, truth=truth)
    assert [found[n].item() for n in ("kept_share", "confidence", "pseudo_accuracy")] == [0, 0, 0]
    assert found["pseudo_share"].tolist() == [0, 0]
