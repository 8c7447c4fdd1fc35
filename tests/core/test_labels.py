from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pixelcontrast.core.labels import resize_labels

side = st.integers(1, 40)


@given(side, side, side, side)
def test_row_is_floor_of_the_ratio(height, width, new_height, new_width):
    labels = torch.arange(height * width).view(1, height, width)
    resized = resize_labels(labels, (new_height, new_width))
    for i in range(new_height):
        for j in range(new_width):
            assert resized[0, i, j] == labels[0, i * height // new_height, j * width // new_width]


@pytest.mark.parametrize(("old", "new"), [(513, 129), (769, 193), (1024, 256), (360, 90)])
def test_ratios_of_published_crops(old, new):
    resized = resize_labels(torch.arange(old).view(1, old, 1), (new, 1))
    assert resized.flatten().tolist() == [i * old // new for i in range(new)]


def test_types_and_leading_dimensions_stay():
    labels = torch.tensor([[0, 255], [7, 1]], dtype=torch.uint8)
    assert resize_labels(labels, (2, 2)) is labels
    doubled = resize_labels(labels.expand(3, 2, 2, 2), (4, 4))
    assert doubled.dtype == torch.uint8
    assert doubled.shape == (3, 2, 4, 4)
    assert doubled.unique().tolist() == [0, 1, 7, 255]  # never a value in between
    assert resize_labels(labels == 7, (4, 4)).sum() == 4
