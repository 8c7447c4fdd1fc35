from __future__ import annotations

import pytest
import torch

from pixelcontrast.core.class_sums import class_sums


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_against_a_loop(dtype):
    g = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, 40, 5, generator=g).to(dtype)
    labels = torch.randint(-1, 6, (3, 40), generator=g)  # -1, 4 and 5 belong to nothing
    sums, counts = class_sums(vectors, labels.to(torch.int16), 4)
    assert sums.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for image in range(3):
        for label in range(4):
            members = vectors[image, labels[image] == label].to(sums.dtype)
            torch.testing.assert_close(sums[image, label], members.sum(0), rtol=1e-5, atol=1e-5)
            assert counts[image, label] == len(members)


def test_single_precision_under_autocast_and_differentiable():
    vectors = torch.full((1, 4096, 1), 1.001, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums, _ = class_sums(vectors, torch.zeros(1, 4096, dtype=torch.long), 2)
    assert sums[0, 0].item() == pytest.approx(4096 * 1.001, rel=1e-5)
    sums.sum().backward()
    assert (vectors.grad == 1).all()
