import pytest
import torch
import torch.nn.functional as F

from pixelcontrast.losses.cross_entropy import segmentation_cross_entropy


def example(seed=0, classes=4):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 5, 7, generator=generator, dtype=torch.float32)
    mask = torch.randint(0, classes, (2, 9, 13), generator=generator)
    mask[torch.rand(mask.shape, generator=generator) < 0.2] = 255
    return logits.requires_grad_(), mask.to(torch.uint8)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_torch_on_upsampled_logits(align_corners, weighted):
    logits, mask = example()
    weights = torch.tensor([0.5, 1.0, 2.0, 0.1]) if weighted else None
    full = F.interpolate(logits, size=(9, 13), mode="bilinear", align_corners=align_corners)
    expected = F.cross_entropy(full, mask.long(), weight=weights, ignore_index=255)
    found = segmentation_cross_entropy(
        logits, mask, class_weights=weights, align_corners=align_corners
    )
    torch.testing.assert_close(found, expected)


def test_hard_example_mining_keeps_the_least_probable_pixels():
    logits, mask = example(1)
    full = F.interpolate(logits, size=(9, 13), mode="bilinear").detach()
    losses = F.cross_entropy(full, mask.long(), ignore_index=255, reduction="none")
    hardest = losses[mask != 255].sort(descending=True).values
    found = segmentation_cross_entropy(logits, mask, ohem_threshold=0.0, ohem_min_kept=20)
    torch.testing.assert_close(found, hardest[:20].mean())
    below = hardest[torch.exp(-hardest) <= 0.3]
    assert len(below) > 20
    found = segmentation_cross_entropy(logits, mask, ohem_threshold=0.3, ohem_min_kept=20)
    torch.testing.assert_close(found, below.mean())


@pytest.mark.parametrize("options", [{}, {"ohem_threshold": 0.7, "ohem_min_kept": 3}])
def test_all_ignored_is_zero_with_zero_gradient(options):
    logits, mask = example()
    loss = segmentation_cross_entropy(logits, torch.full_like(mask, 255), **options)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.count_nonzero(logits.grad) == 0


def test_half_precision_logits_are_computed_in_float32():
    logits, mask = example()
    exact = segmentation_cross_entropy(logits.to(torch.bfloat16).float(), mask)
    found = segmentation_cross_entropy(logits.to(torch.bfloat16), mask)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact)
