"""The linear probe learns what is linear, and nothing moves but the probe."""

import pytest
import torch
import torch.nn.functional as F

from pixelcontrast.evaluation import LinearProbe


def batches(seed, count=4):
    """Features whose class is a linear function of them, labels at twice the size."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.eye(3, 6)
    found = []
    for _ in range(count):
        small = torch.randint(0, 3, (2, 4, 5), generator=generator)
        features = rows[small].movedim(-1, 1) + 0.1 * torch.randn(2, 6, 4, 5, generator=generator)
        found.append((features, F.interpolate(small[:, None].float(), (8, 10))[:, 0].long()))
    return found


def test_learns_and_is_repeatable():
    scores = []
    for _ in range(2):
        probe = LinearProbe(6, 3, lr=0.05)
        probe.fit(batches(0), epochs=15)
        scores.append([probe.logits(features) for features, _ in batches(1)])
    right = [
        F.interpolate(found, (8, 10), mode="bilinear").argmax(1) == target
        for found, (_, target) in zip(scores[0], batches(1), strict=True)
    ]
    # border pixels lie between two features
    assert torch.stack(right).float().mean() > 0.9
    assert all(torch.equal(a, b) for a, b in zip(*scores, strict=True))


def test_first_step_is_adam_on_the_mean_cross_entropy_of_labelled_pixels():
    features, target = batches(2, 1)[0]
    target[:, :3] = 255
    probe = LinearProbe(6, 3)
    linear = torch.nn.Conv2d(6, 3, 1)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    optimizer = torch.optim.Adam(linear.parameters(), lr=5e-3)
    for _ in range(3):
        logits = F.interpolate(linear(features), (8, 10), mode="bilinear")
        loss = F.cross_entropy(logits, target, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch.testing.assert_close(probe.step(features, target), loss.detach())
    torch.testing.assert_close(probe.weight, linear.weight[:, :, 0, 0])
    torch.testing.assert_close(probe.bias, linear.bias)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_features_are_frozen_whatever_the_mode(mode):
    features, target = batches(3, 1)[0]
    features.requires_grad_()
    probe = LinearProbe(6, 3)
    with mode():
        probe.step(features * 1.0, target.clone())
    assert features.grad is None
    assert probe.weight.abs().sum() > 0


def test_a_batch_without_labels_changes_nothing():
    features, target = batches(4, 1)[0]
    probe = LinearProbe(6, 3)
    probe.step(features, target)
    before = probe.weight.detach().clone()
    assert float(probe.step(features, torch.full_like(target, 255))) == 0
    assert torch.equal(probe.weight, before)
