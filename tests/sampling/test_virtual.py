import pytest
import torch

from pixelcontrast.core.seeding import generator_for
from pixelcontrast.sampling import virtual_points

MEAN, VARIANCE = torch.tensor([[1.5]]), torch.tensor([[1 / 12]])


@pytest.mark.parametrize(
    ("scale", "expected"),
    [("variance", 1.6), ("std", 1.846410), ("exp-half-variance", 2.751056)],
)
def test_points_by_hand(scale, expected):
    noise = torch.full((3, 1, 1), 0.6)
    points = virtual_points(MEAN, VARIANCE, noise, scale=scale, radius=2.0)
    assert points.shape == noise.shape
    assert points.flatten().tolist() == pytest.approx([expected] * 3)


def test_std_gives_samples_of_the_distribution():
    noise = torch.randn(100_000, 1, 1, generator=generator_for("cpu", 0))
    points = virtual_points(MEAN, VARIANCE, noise, scale="std")
    assert points.mean() == pytest.approx(1.5, abs=0.01)
    assert points.var() == pytest.approx(1 / 12, rel=0.02)
