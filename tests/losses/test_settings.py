import math

import pytest
import torch

from pixelcontrast.losses.settings import Settings


def make(temperature, norms=(1.0, 1.0), keys=65536, dtype=torch.float32):
    return Settings.of(
        1 / temperature, negatives=True, own_image=False, norms=norms, keys=keys, dtype=dtype
    )


@pytest.mark.parametrize("temperature", [0.03, 0.05, 0.07, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("keys", [1, 1000, 65536])
def test_bounded_sums_and_products_are_finite_at_the_extremes(temperature, keys):
    plan = make(temperature, keys=keys)
    assert plan.bounded
    largest = torch.tensor(plan.scale)
    total = keys * torch.exp2(largest)  # every negative next to the anchor
    above = 1 + total * torch.exp2(largest)  # a positive opposite to it
    assert torch.isfinite(above ** (2**plan.folds))
    assert torch.exp2(-largest) / total > 0


def test_unit_vectors_need_a_running_maximum_below_003_and_long_ones_earlier():
    assert not make(0.02).bounded
    assert make(0.02, dtype=torch.float64).bounded
    assert not make(0.1, norms=(3.0, 3.0)).bounded
    assert not make(0.1, norms=(math.nan, 1.0)).bounded
    assert not make(0.1, norms=(math.inf, 1.0)).bounded


def test_folds_grow_with_temperature():
    assert [make(t).folds for t in (0.03, 0.1, 0.5, 5.0)] == [0, 1, 2, 2]
    assert make(5.0, keys=10).folds == 3
