import pytest
import torch

from pixelcontrast.losses.maps import as_rows, subsample_labels


def test_crops_of_513_and_maps_of_65_keep_every_eighth_pixel():
    labels = torch.arange(513 * 513).view(1, 513, 513)
    assert torch.equal(subsample_labels(labels, (65, 65)), labels[:, ::8, ::8])
    half = labels[:, :129, :129]
    assert torch.equal(subsample_labels(half, (65, 65)), half[:, ::2, ::2])


@pytest.mark.parametrize(("old", "new"), [(7, 3), (10, 4), (5, 9), (4, 1), (6, 6)])
def test_nearest_pixel_with_corners_kept(old, new):
    labels = torch.arange(old).view(1, old, 1).to(torch.uint8)
    steps = torch.linspace(0, old - 1, new, dtype=torch.float64)
    expected = (steps + 0.5).floor().long()  # halves up
    got = subsample_labels(labels, (new, 1))
    assert got.dtype == torch.uint8
    assert got.flatten().tolist() == expected.tolist()


def test_rows_follow_image_row_column():
    maps = torch.arange(2 * 3 * 2 * 2).view(2, 3, 2, 2).float()
    labels = torch.arange(2 * 4 * 4).view(2, 4, 4)
    rows, ids, images = as_rows(maps, labels)
    assert torch.equal(rows[5], maps[1, :, 0, 1])
    assert ids.tolist() == labels[:, ::2, ::2].flatten().tolist()
    assert images.tolist() == [0] * 4 + [1] * 4
