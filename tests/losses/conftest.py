import math

import pytest
import torch
import torch.nn.functional as F


@pytest.fixture(scope="session")
def unit_rows():
    """Makes labelled unit vectors from a seed; -1 is ignored."""

    def make(count, dim, classes, seed=0, dtype=torch.float64, ignored=0.15, skew=0.0):
        rng = torch.Generator().manual_seed(seed)
        rows = F.normalize(torch.randn(count, dim, generator=rng, dtype=dtype), dim=1)
        weights = torch.arange(1, classes + 1, dtype=torch.float64) ** -skew
        labels = torch.multinomial(weights, count, replacement=True, generator=rng)
        out = torch.rand(count, generator=rng) < ignored
        return rows, labels.masked_fill(out, -1)

    return make


@pytest.fixture(scope="session")
def by_loops():
    """The losses by nested Python loops, straight from their formulas."""
    return _by_loops


def _by_loops(
    anchors, labels, keys, key_labels, *, tau, denominator, own=None, images=None, key_images=None
):
    def similarity(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / tau

    losses = []
    for i, anchor in enumerate(anchors):
        pairs = [k for k in range(len(keys)) if key_labels[k] >= 0 and (own is None or own[i] != k)]
        positives = [similarity(anchor, keys[k]) for k in pairs if key_labels[k] == labels[i]]
        negatives = [
            similarity(anchor, keys[k])
            for k in pairs
            if key_labels[k] != labels[i] and (images is None or images[i] == key_images[k])
        ]
        if labels[i] < 0 or not positives:
            losses.append(None)
            continue
        total = 0.0
        for s in positives:
            below = [s, *negatives] if denominator == "negatives" else [*positives, *negatives]
            total += math.log(sum(math.exp(b - s) for b in below))
        losses.append(total / len(positives))
    return losses
