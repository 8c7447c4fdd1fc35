import itertools

import pytest
import torch

from pixelcontrast.losses import pixel_info_nce


@pytest.mark.parametrize(
    ("denominator", "negatives"),
    list(itertools.product(["negatives", "all"], ["all", "own_image"])),
)
def test_full_matrix_equals_nested_loops(unit_rows, by_loops, denominator, negatives):
    a, y = unit_rows(13, 5, 3, seed=1)
    k, z = unit_rows(17, 5, 4, seed=2)
    images, key_images = torch.arange(13) % 2, torch.arange(17) % 3
    own = torch.arange(13) - 2  # the first two anchors are not among the keys
    k[: 13 - 2], z[: 13 - 2] = a[2:], y[2:]
    scoped = negatives == "own_image"
    expected = by_loops(
        a.tolist(),
        y.tolist(),
        k.tolist(),
        z.tolist(),
        tau=0.2,
        denominator=denominator,
        own=own.tolist(),
        images=images.tolist() if scoped else None,
        key_images=key_images.tolist(),
    )
    loss = pixel_info_nce(
        a,
        y,
        k,
        z,
        temperature=0.2,
        denominator=denominator,
        negatives=negatives,
        anchor_images_N=images,
        key_images_K=key_images,
        self_index_N=own,
        reduction="none",
        backend="naive",
    )
    torch.testing.assert_close(
        loss, torch.tensor([e or 0.0 for e in expected], dtype=a.dtype), rtol=1e-12, atol=1e-12
    )
    taken = [e for e in expected if e is not None]
    assert len(taken) not in (0, 13)


def test_far_logits_are_exact():
    # softplus(x) differs from x by e^-x: PyTorch's softplus drops that above 20
    a = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    k = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    loss = pixel_info_nce(
        a, torch.tensor([0]), k, torch.tensor([0, 1]), temperature=0.08, backend="naive"
    )
    assert loss.item() == pytest.approx(25 + 1.3887943864771144e-11, abs=1e-14)
