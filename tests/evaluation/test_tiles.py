import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pixelcontrast.evaluation import tiles


@settings(max_examples=60, deadline=None)
@given(
    small=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    large=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    align_corners=st.booleans(),
    tile=st.sampled_from([1, 2000, 10**7]),
)
def test_bands_equal_interpolate(small, large, align_corners, tile):
    logits = torch.randn(2, 3, *small, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(logits, large, mode="bilinear", align_corners=align_corners)
    budget, tiles.CPU_TILE_BYTES = tiles.CPU_TILE_BYTES, tile
    try:
        bands = list(tiles.upsampled_rows(logits, large, align_corners=align_corners))
    finally:
        tiles.CPU_TILE_BYTES = budget
    assert [row for rows, _ in bands for row in range(rows.start, rows.stop)] == list(
        range(large[0])
    )
    torch.testing.assert_close(torch.cat([band for _, band in bands], 2), whole, rtol=0, atol=2e-5)


def test_half_precision_is_upsampled_in_float32():
    logits = torch.randn(1, 3, 5, 5).bfloat16()
    ((_, band),) = tiles.upsampled_rows(logits, (20, 20))
    assert band.dtype == torch.float32
    whole = F.interpolate(logits.float(), (20, 20), mode="bilinear")
    torch.testing.assert_close(band, whole, rtol=0, atol=2e-6)


@pytest.mark.parametrize("classes", [1, 2, 19, 255, 256])
def test_best_class_takes_the_first_of_equals(classes):
    generator = torch.Generator().manual_seed(1)
    scores = torch.randint(0, 4, (2, classes, 9, 9), generator=generator).float()
    best, index = tiles.best_class(scores)
    assert torch.equal(best, scores.amax(1))
    assert torch.equal(index.long(), scores.argmax(1))
    assert index.dtype == (torch.uint8 if classes <= 255 else torch.int16)


def test_labels_from_logits_do_not_depend_on_the_tile(monkeypatch):
    logits = torch.randn(2, 6, 9, 11, generator=torch.Generator().manual_seed(2))
    whole = tiles.labels_from_logits(logits, (41, 37))
    monkeypatch.setattr(tiles, "CPU_TILE_BYTES", 1)
    assert torch.equal(tiles.labels_from_logits(logits, (41, 37)), whole)


def test_row_bands_cover_every_row(monkeypatch):
    monkeypatch.setattr(tiles, "CPU_TILE_BYTES", 4 * 2 * 3 * 5 * 4)
    bands = list(tiles.row_bands(torch.zeros(2, 3, 10, 5)))
    assert bands == [slice(0, 4), slice(4, 8), slice(8, 10)]
