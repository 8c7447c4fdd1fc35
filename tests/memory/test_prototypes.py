from __future__ import annotations

import pytest
import torch

from pixelcontrast.memory import ClassPrototypes, GaussianPrototypes


def batches(seed=0, steps=5):
    g = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        vectors = torch.randn(30, 4, generator=g)
        labels = torch.randint(-1, 6, (30,), generator=g)
        labels[labels == 2] = 255  # class 2 never occurs, 5 lies outside
        yield vectors, labels


def test_running_mean_is_the_mean_of_all():
    prototypes = ClassPrototypes(5, 4)
    everything = list(batches())
    for vectors, labels in everything:
        prototypes.update(vectors, labels)
    vectors, labels = (torch.cat(part) for part in zip(*everything, strict=True))
    means, ids, valid = prototypes.keys()
    assert ids.tolist() == [0, 1, -1, 3, 4]
    assert valid.tolist() == [True, True, False, True, True]
    assert not means[2].any()
    for label in (0, 1, 3, 4):
        torch.testing.assert_close(means[label], vectors[labels == label].mean(0))
        assert prototypes.count[label] == (labels == label).sum()


def test_running_mean_by_hand():
    prototypes = ClassPrototypes(1, 2)
    prototypes.update(torch.zeros(3, 2), torch.zeros(3, dtype=torch.long))
    prototypes.update(torch.tensor([[1.0, 0], [1, 0]]), torch.zeros(2, dtype=torch.long))
    assert prototypes.mean[0].tolist() == pytest.approx([0.4, 0])
    assert prototypes.count.tolist() == [5]


def test_fading_mean():
    prototypes = ClassPrototypes(2, 1, decay=0.9)
    one = torch.ones(2, dtype=torch.long)
    expected = None
    for value in (4.0, 2.0, -1.0):
        prototypes.update(torch.tensor([[value - 1], [value + 1]]), one)
        expected = value if expected is None else 0.9 * expected + 0.1 * value
        assert prototypes.mean[1].item() == pytest.approx(expected)
    prototypes.update(torch.ones(1, 1), one[:1] * 0)  # class 1 is absent and stays
    assert prototypes.mean[:, 0].tolist() == pytest.approx([1.0, expected])


def test_gaussian_product_by_hand():
    prototypes = GaussianPrototypes(3, 1)
    zeros = torch.zeros(2, dtype=torch.long)
    local = prototypes.update(torch.tensor([[1.0], [4.0]]), torch.tensor([[0.5], [0.25]]), zeros)
    assert local.variance[0].item() == pytest.approx(1 / 6)
    assert local.mean[0].item() == pytest.approx(3)
    assert local.valid.tolist() == [True, False, False]
    assert local.variance[1].item() == float("inf")
    assert local.mean[1].item() == 0


def test_gaussians_over_steps():
    prototypes = GaussianPrototypes(2, 1)
    label = torch.ones(1, dtype=torch.long)

    def observe(mean, variance):
        prototypes.update(torch.tensor([[mean]]), torch.tensor([[variance]]), label)
        return [prototypes.gaussians().mean[1].item(), prototypes.gaussians().variance[1].item()]

    assert observe(1.0, 0.5) == pytest.approx([1, 0.5])
    assert observe(4.0, 0.25) == pytest.approx([3, 1 / 6])
    prototypes.update(torch.ones(1, 1), torch.ones(1, 1), label * 0)
    assert prototypes.gaussians().mean[1].item() == pytest.approx(3)
    assert observe(0.0, 1 / 6) == pytest.approx([1.5, 1 / 12])


def test_gaussian_decay_fades_the_past_of_seen_classes_alone():
    prototypes = GaussianPrototypes(2, 1, decay=0.5)
    both = torch.tensor([0, 1])
    prototypes.update(torch.ones(2, 1), torch.ones(2, 1), both)
    prototypes.update(torch.full((1, 1), 4.0), torch.ones(1, 1), both[1:])
    found = prototypes.gaussians()
    assert found.variance[:, 0].tolist() == pytest.approx([1, 1 / 1.5])
    assert found.mean[:, 0].tolist() == pytest.approx([1, 4.5 / 1.5])


def test_observed_gaussians_count_before_they_are_remembered(monkeypatch):
    prototypes, blocks = GaussianPrototypes(3, 4, decay=0.5), GaussianPrototypes(3, 4, decay=0.5)
    data = torch.randn(10, 4), torch.rand(10, 4) + 0.1, torch.arange(10) % 2
    prototypes.update(*data)
    before = [b.clone() for b in prototypes.buffers()]
    new = prototypes.observe(data[0] + 1, data[1], data[2])
    ahead = prototypes.gaussians(new)
    assert all(torch.equal(a, b) for a, b in zip(prototypes.buffers(), before, strict=True))
    prototypes.add(new)
    for found, expected in zip(ahead, prototypes.gaussians(), strict=True):
        assert torch.equal(found, expected)
    monkeypatch.setattr("pixelcontrast.memory.prototypes._BLOCK_ROWS", 3)
    blocks.update(*data)
    torch.testing.assert_close(blocks.precision, before[0])
    torch.testing.assert_close(blocks.weighted_mean, before[1])


def test_gaussians_stay_finite():
    # 25,000 steps of 5,000 sure pixels each; float16 would overflow in the first.
    prototypes = GaussianPrototypes(1, 1)
    prototypes.precision.fill_(25_000 * 5_000 * 1e6)
    prototypes.weighted_mean.fill_(2 * 25_000 * 5_000 * 1e6)
    prototypes.seen.fill_(True)
    before = prototypes.precision.clone()
    prototypes.update(torch.full((1, 1), 2.0), torch.full((1, 1), 1e-6), torch.zeros(1).long())
    assert prototypes.precision > before  # not swallowed
    assert prototypes.gaussians().mean.item() == pytest.approx(2)


@pytest.mark.parametrize("kind", [ClassPrototypes, GaussianPrototypes])
def test_resumes_exactly(kind):
    def step(prototypes, vectors, labels):
        extra = () if kind is ClassPrototypes else (vectors.square() + 0.1,)
        prototypes.update(vectors, *extra, labels)

    whole, half = kind(5, 4), kind(5, 4)
    data = list(batches())
    for vectors, labels in data[:3]:
        step(whole, vectors, labels)
    half.load_state_dict(whole.state_dict())
    for vectors, labels in data[3:]:
        step(whole, vectors, labels)
        step(half, vectors, labels)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, half.state_dict()[name])
