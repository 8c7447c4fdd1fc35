import pytest
import torch

from pixelcontrast.evaluation import feature_sample
from pixelcontrast.evaluation.feature_sample import FeatureSample, pixel_keys


def splitmix64(state):
    """The generator as its authors write it, in whole numbers."""
    mask = 2**64 - 1
    z = state & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_keys_are_those_of_splitmix64():
    import hashlib

    index = torch.tensor([0, 1, 2, 70_000_000])
    start = int.from_bytes(hashlib.sha256(b"5\0street/1").digest()[:8], "little")
    expected = [splitmix64(start + (int(i) + 1) * 0x9E3779B97F4A7C15) & (2**63 - 1) for i in index]
    assert pixel_keys(5, "street/1", index).tolist() == expected


def test_keys_differ_by_seed_image_and_place_and_are_spread_evenly():
    index = torch.arange(20_000)
    keys = pixel_keys(0, "a", index)
    for other in (pixel_keys(1, "a", index), pixel_keys(0, "b", index)):
        assert not bool((keys == other).any())
    assert len(keys.unique()) == len(keys)
    assert int(keys.min()) >= 0
    eighths = (keys >> 60).bincount(minlength=8)
    assert float((eighths - 2500).abs().max()) < 250


def drawn(count=500, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    keys = torch.randperm(count, generator=generator)
    return torch.arange(count, dtype=torch.float32)[:, None], labels, keys


def slow_sample(labels, keys, classes, size):
    chosen = []
    for c in range(classes):
        rows = [i for i in range(len(labels)) if labels[i] == c]
        chosen += sorted(rows, key=lambda i: int(keys[i]))[:size]
    return chosen


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("parts", [1, 2, 7, 100])
@pytest.mark.parametrize("least", [1, 10_000])
def test_the_smallest_keys_of_every_class_stay(monkeypatch, size, parts, least):
    monkeypatch.setattr(feature_sample, "_LEAST_PENDING", least)
    vectors, labels, keys = drawn()
    sample = FeatureSample(4, size)
    for rows in torch.randperm(500, generator=torch.Generator().manual_seed(9)).chunk(parts):
        sample.add(vectors[rows], labels[rows], keys[rows])
    found, classes, order = sample.rows()
    expected = slow_sample(labels, keys, 4, size)
    assert found.flatten().int().tolist() == expected
    assert torch.equal(classes, labels[expected])
    assert torch.equal(order, keys[expected])


def test_samples_merge_like_one():
    vectors, labels, keys = drawn()
    whole, left, right = FeatureSample(4, 20), FeatureSample(4, 20), FeatureSample(4, 20)
    whole.add(vectors, labels, keys)
    left.add(vectors[:123], labels[:123], keys[:123])
    right.add(vectors[123:], labels[123:], keys[123:])
    left.merge(right)
    for one, other in zip(whole.rows(), left.rows(), strict=True):
        assert torch.equal(one, other)


def test_fewer_rows_are_the_smallest_of_each_class():
    vectors, labels, keys = drawn()
    sample = FeatureSample(4, 20)
    sample.add(vectors, labels, keys)
    assert sample.rows(3)[0].flatten().int().tolist() == slow_sample(labels, keys, 4, 3)
    assert len(sample.rows()[0]) == 80


def test_an_empty_sample_has_no_rows():
    assert [len(part) for part in FeatureSample(3, 5).rows()] == [0, 0, 0]


def test_memory_stays_bounded(monkeypatch):
    monkeypatch.setattr(feature_sample, "_LEAST_PENDING", 64)
    sample = FeatureSample(4, 8)
    for seed in range(30):
        sample.add(*drawn(seed=seed))
        assert sum(len(rows[0]) for rows in sample._rows) <= 4 * 8 + 64 + 500
