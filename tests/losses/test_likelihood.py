import math

import pytest
import torch
from torch.distributions import Normal

from pixelcontrast.losses import mutual_likelihood, pairwise_likelihood


def score(mean0, variance0, mean1, variance1, **options):
    parts = [
        torch.tensor(part, dtype=torch.float64) for part in (mean0, variance0, mean1, variance1)
    ]
    return mutual_likelihood(*parts, **options).item()


def test_hand_computed_scores():
    same, half = [1.0, 0.0], [0.5, 0.5]
    assert score(same, half, [0.0, 1.0], half) == pytest.approx(-1)
    assert score(same, half, [0.0, 1.0], half, reduction="mean") == pytest.approx(-0.5)
    assert score(same, half, [0.0, 1.0], half, constant=True) == pytest.approx(-2.837877)
    assert score(same, half, same, half) == pytest.approx(0)
    assert score(same, half, same, half, constant=True) == pytest.approx(-1.837877)
    other = ([3.0, 4.0], [0.1, 0.2], [4.0, 3.0], [0.3, 0.2])
    assert score(*other) == pytest.approx(0.816291, abs=1e-6)
    assert score(*other, reduction="mean") == pytest.approx(0.408146, abs=1e-6)
    assert score(*other, constant=True) == pytest.approx(-1.021586, abs=1e-6)


def test_lengths_of_means_do_not_matter():
    long = score([21.0, 28.0], [0.1, 0.2], [4.0, 3.0], [0.3, 0.2])
    assert long == pytest.approx(score([3.0, 4.0], [0.1, 0.2], [0.4, 0.3], [0.3, 0.2]))


def test_hand_computed_gradients():
    mean = torch.tensor([0.6, 0.8], dtype=torch.float64, requires_grad=True)
    variance = torch.tensor([0.1, 0.2], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([0.8, 0.6], dtype=torch.float64), torch.tensor([0.3, 0.2]).double()
    mutual_likelihood(mean, variance, *other, reduction="mean").backward()
    torch.testing.assert_close(mean.grad, torch.tensor([0.28, -0.21]).double())
    torch.testing.assert_close(variance.grad, torch.tensor([-0.5625, -0.5625]).double())


def test_it_is_the_logarithm_of_the_chance_to_coincide():
    """The density of the difference of two draws at zero, integrated numerically."""
    a, b, va, vb = 0.6, 0.8, 0.3, 0.5
    z = torch.linspace(-20, 20, 400_001, dtype=torch.float64)
    densities = [Normal(m, math.sqrt(v)).log_prob(z).exp() for m, v in ((a, va), (b, vb))]
    chance = torch.trapezoid(densities[0] * densities[1], z).log().item()
    rest = Normal(0.0, math.sqrt(va + vb)).log_prob(torch.tensor(0.8 - 0.6)).item()
    found = score([a, b], [va, va], [b, a], [vb, vb], constant=True)
    assert chance == pytest.approx(rest, abs=1e-6)
    assert found == pytest.approx(2 * chance, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_extreme_inputs_stay_finite_under_autocast(dtype):
    mean = torch.zeros(3, 4, requires_grad=True)
    variance = torch.full((3, 4), 1e-6, requires_grad=True)
    with torch.autocast("cpu", dtype):
        found = mutual_likelihood(mean, variance, torch.randn(3, 4), torch.zeros(3, 4))
    assert found.dtype == torch.float32
    found.sum().backward()
    for part in (found, mean.grad, variance.grad):
        assert torch.isfinite(part).all()


def test_pairs_of_prototypes_in_blocks(monkeypatch):
    torch.manual_seed(0)
    mean, variance = torch.randn(7, 5), torch.rand(7, 5) + 1e-3
    expected = mutual_likelihood(
        mean.double()[:, None], variance.double()[:, None], mean.double(), variance.double()
    )
    torch.testing.assert_close(pairwise_likelihood(mean, variance), expected)
    monkeypatch.setattr("pixelcontrast.losses.likelihood._PAIRWISE_BYTES", 8 * 35 * 3)
    torch.testing.assert_close(pairwise_likelihood(mean, variance), expected)
    variance[3] = torch.inf  # a class without a prototype
    found = pairwise_likelihood(mean, variance)
    assert (found[3] == -torch.inf).all()
    assert (found[:, 3] == -torch.inf).all()
    assert torch.isfinite(found[0, [0, 1, 2, 4, 5, 6]]).all()
