from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pixelcontrast.sampling import gather_pixels, region_means, sample_per_class


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_against_a_loop(memory_format):
    g = torch.Generator().manual_seed(0)
    embedding = F.normalize(torch.randn(3, 7, 6, 5, generator=g), dim=1)
    labels = torch.randint(0, 4, (3, 6, 5), generator=g, dtype=torch.uint8)
    labels[1] = 255
    labels[2, 0, 0] = 4
    sample = region_means(
        embedding.to(memory_format=memory_format), labels, num_classes=5, ignore_index=255
    )
    assert sample.image.tolist() == [i for i in range(3) for _ in range(5)]
    for row in range(15):
        image, label = divmod(row, 5)
        members = embedding[image][:, labels[image] == label]
        assert sample.pixels[row] == members.shape[1]
        if members.shape[1]:
            assert sample.labels[row] == label
            torch.testing.assert_close(
                sample.vectors[row], F.normalize(members.mean(1), dim=0), rtol=1e-5, atol=1e-6
            )
        else:
            assert sample.labels[row] == -1
            assert not sample.vectors[row].any()


def test_ignored_class_has_no_region():
    embedding = torch.ones(1, 2, 1, 3)
    sample = region_means(embedding, torch.tensor([[[0, 0, 1]]]), num_classes=2, ignore_index=0)
    assert sample.labels.tolist() == [-1, 1]


def test_vectors_belong_to_their_class_on_every_band():
    # Four horizontal bands of one-hot features; labels at four times the resolution would
    # address the top band alone if strided wrongly.
    band = torch.arange(4).repeat_interleave(4)
    labels = band[:, None].expand(16, 8)[None]
    embedding = F.one_hot(labels, 4).movedim(-1, 1).float()
    regions = region_means(embedding, labels, num_classes=4)
    assert torch.equal(regions.vectors, torch.eye(4))
    pixels = sample_per_class(labels, 10, num_classes=4, generator=torch.Generator().manual_seed(0))
    assert pixels.valid.all()
    assert torch.equal(gather_pixels(embedding, pixels.index), F.one_hot(pixels.labels, 4).float())
