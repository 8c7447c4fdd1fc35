import math

import pytest
import torch

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.methods.optim import (
    OptimConfig,
    build_optimizer,
    build_schedule,
    learning_rate_factor,
)


def test_cosine_reaches_the_published_values():
    config = OptimConfig(lr=0.1, schedule="cosine")
    rates = [
        0.1 * learning_rate_factor(step, 300_000, config) for step in (75_000, 150_000, 300_000)
    ]
    assert rates == pytest.approx([0.0853553, 0.05, 0.0], abs=1e-7)


def test_poly_falls_to_zero_and_warms_up():
    config = OptimConfig(warmup_steps=10)
    assert learning_rate_factor(0, 100, config) == pytest.approx(0.1)
    assert learning_rate_factor(9, 100, config) == 1.0
    assert learning_rate_factor(55, 100, config) == pytest.approx(0.5**0.9)
    assert learning_rate_factor(100, 100, config) == 0.0


def test_constant_stays():
    assert learning_rate_factor(77, 100, OptimConfig(schedule="constant")) == 1.0


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_groups_keep_their_own_rates_through_the_schedule(name):
    first, second = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    config = OptimConfig(name=name, lr=0.1)
    groups = [
        {"params": [first], "lr": 0.1, "weight_decay": 0.0},
        {"params": [second], "lr": 1.0, "weight_decay": 0.0},
    ]
    optimizer = build_optimizer(groups, config)
    schedule = build_schedule(optimizer, config, total_steps=10)
    optimizer.step()
    schedule.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx(
        [0.1 * math.pow(0.9, 0.9), math.pow(0.9, 0.9)]
    )


def test_prcls_rates_fall_per_group_to_a_floor():
    """Rates at step 100 and 199 of 200: 1.714838e-3, and 1e-6 for the variance head."""
    config = OptimConfig(lr=3.2e-3, nesterov=True, min_lr=1e-6)
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate, "weight_decay": 0.0}
        for rate in (3.2e-3, 5e-5)
    ]
    optimizer = build_optimizer(groups, config)
    assert all(group["nesterov"] for group in optimizer.param_groups)
    schedule = build_schedule(optimizer, config, total_steps=200)
    rates = []
    for _ in range(201):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert rates[100][0] == pytest.approx(1.714838e-3, rel=1e-6)
    assert rates[199][1] == pytest.approx(1e-6)
    assert rates[200] == pytest.approx([1e-6, 1e-6])


@pytest.mark.parametrize("layer_decay", [0.0, -0.5, 1.1, float("nan")])
def test_rates_cannot_grow_with_depth_or_vanish(layer_decay):
    with pytest.raises(ConfigError, match="layer_decay"):
        OptimConfig(layer_decay=layer_decay)
