import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelcontrast.data.catalog import open_dataset
from pixelcontrast.data.inspection import count_classes, count_values, inspect_samples
from pixelcontrast.data.reading import read_mask


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=60),
    st.sampled_from([np.uint8, np.uint16, np.int32]),
)
def test_counting_runs_is_counting_pixels(values, dtype):
    found, counts = count_values(np.array([values], dtype))
    expected, expected_counts = np.unique(values, return_counts=True)
    assert found.tolist() == expected.tolist()
    assert counts.tolist() == expected_counts.tolist()


@pytest.mark.parametrize(
    "yaml",
    [
        "classes: [a, b, c]",
        "classes: [a, b, c]\nlabel_map: {0: c, 1: a, 2: ignore}",
        "classes: [a, b, c]\nlabel_map: {'#000000': b, '#010101': b, '#020202': c, '#ffffff': ~}",
    ],
)
def test_class_counts_are_those_of_the_mapped_masks(draw, yaml):
    rng = np.random.default_rng(3)
    masks = {i: rng.choice([0, 1, 2, 255], (40, 48)).astype(np.uint8) for i in "ab"}
    dataset = open_dataset(draw({**masks, "c": None}, yaml=yaml))
    counts = count_classes(dataset, workers=1)
    assert set(counts) == {"a", "b"}
    for sample in dataset.samples[:2]:
        mask = read_mask(sample.mask, dataset.info)
        pixels = np.bincount(mask.ravel(), minlength=256)
        assert counts[sample.id].tolist() == [*pixels[:3], pixels[255]]


def test_threads_change_nothing_and_progress_is_told(draw, ids_mask):
    dataset = open_dataset(draw({str(i): ids_mask(0, i % 3) for i in range(9)}))
    calls = []
    one = inspect_samples(dataset.samples, dataset.info, workers=1)
    many = inspect_samples(
        dataset.samples, dataset.info, workers=4, progress=lambda *a: calls.append(a)
    )
    assert [i.sample for i in one] == [i.sample for i in many] == list(dataset.samples)
    assert all((a.counts == b.counts).all() for a, b in zip(one, many, strict=True))
    assert calls == [(i, 9) for i in range(1, 10)]
