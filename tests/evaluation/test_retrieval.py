"""Nearest images against a search through all pixels."""

import pytest
import torch
import torch.nn.functional as F

from pixelcontrast.evaluation import NearestImages


def drawn(images=7, size=(3, 4), dim=5):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(images, dim, *size, generator=generator), torch.randn(
        3, dim, generator=generator
    )


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_the_best_pixel_of_every_image_ranks_it(batch):
    features, queries = drawn()
    search = NearestImages(queries, 4)
    for start in range(0, 7, batch):
        part = features[start : start + batch]
        search.add(part, [f"image {start + i}" for i in range(len(part))])
    for query, hits in zip(queries, search.hits(), strict=True):
        everything = sorted(
            (
                float(F.cosine_similarity(features[i, :, y, x], query, dim=0)),
                f"image {i}",
                y,
                x,
            )
            for i in range(7)
            for y in range(3)
            for x in range(4)
        )[::-1]
        expected = []
        for similarity, image, y, x in everything:
            if image not in {name for name, *_ in expected}:
                expected.append((image, y, x, similarity))
        for hit, (image, y, x, similarity) in zip(hits, expected[:4], strict=True):
            assert (hit.image, hit.row, hit.column) == (image, y, x)
            assert hit.similarity == pytest.approx(similarity, abs=1e-6)


def test_fewer_images_than_asked_for_and_images_of_different_size():
    search = NearestImages(torch.tensor([[1.0, 0.0]]), 5)
    assert search.hits() == [[]]
    wide = torch.zeros(1, 2, 2, 6)
    wide[0, 0, 1, 5] = 2.0
    search.add(wide, ["wide"])
    search.add(torch.ones(1, 2, 1, 1), ["small"])
    search.add(torch.ones(0, 2, 1, 1), [])
    wide, small = search.hits()[0]
    assert (wide.image, wide.row, wide.column, wide.similarity) == ("wide", 1, 5, 1.0)
    assert small.image == "small"


def test_equal_images_stay_in_order():
    search = NearestImages(torch.tensor([[1.0, 0.0]]), 2)
    for name in "abc":
        search.add(torch.ones(1, 2, 2, 2), [name])
    assert [hit.image for hit in search.hits()[0]] == ["a", "b"]


def test_names_must_fit():
    with pytest.raises(ValueError, match="1 names for 2 images"):
        NearestImages(torch.ones(1, 2), 1).add(torch.ones(2, 2, 1, 1), ["a"])
    with pytest.raises(ValueError, match="count"):
        NearestImages(torch.ones(1, 2), 0)
