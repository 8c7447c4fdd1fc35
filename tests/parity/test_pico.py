"""Pixel contrast against the official code of Wang et al. (ICCV 2021)."""

import pytest
import torch

from pixelcontrast.losses import pixel_info_nce, segmentation_cross_entropy
from pixelcontrast.sampling import resize_labels, sample_anchors

# type of the run, suffix of its reference values, relative tolerance of losses, absolute of
# gradients
RUNS = [(torch.float32, "", 1e-5, 1e-6), (torch.float64, "_f64", 1e-10, 1e-10)]


def test_every_case_has_a_check(reference_cases):
    assert {case.kind for case in reference_cases("pico")} <= {"self", "queue", "joint"}


def anchor_rows(case, dtype):
    """Rows (V A, D), view-major, their labels, and the stored tensor they come from."""
    stored = case.tensor("X_anchor", dtype).requires_grad_()
    groups, views, dim = stored.shape
    assert (groups, views, dim) == tuple(case.meta[k] for k in "AVD")
    return stored.transpose(0, 1).reshape(-1, dim), case.tensor("y_anchor").repeat(views), stored


def options(case):
    return {k: case.meta[k] for k in ("temperature", "base_temperature")}


@pytest.mark.reference("pico", kind="self")
@pytest.mark.parametrize("backend", ["stream", "naive"])
@pytest.mark.parametrize(("dtype", "suffix", "rtol", "atol"), RUNS)
def test_anchors_among_each_other(case, backend, dtype, suffix, rtol, atol):
    rows, labels, stored = anchor_rows(case, dtype)
    loss = pixel_info_nce(rows, labels, backend=backend, **options(case))
    loss.backward()
    torch.testing.assert_close(loss, case.tensor("loss" + suffix), rtol=rtol, atol=0)
    torch.testing.assert_close(stored.grad, case.tensor("grad" + suffix), rtol=0, atol=atol)


@pytest.mark.reference("pico", kind="queue")
@pytest.mark.parametrize("backend", ["stream", "naive"])
@pytest.mark.parametrize(("dtype", "suffix", "rtol", "atol"), RUNS)
def test_anchors_against_a_queue(case, backend, dtype, suffix, rtol, atol):
    # Deviation: the official zero rows and the pair it drops are faults; the "clean" values are
    # those of the official loss over all slots of all classes.
    rows, labels, stored = anchor_rows(case, dtype)
    queue = case.tensor("queue", dtype)
    ids = torch.arange(len(queue)).repeat_interleave(queue.shape[1])
    loss = pixel_info_nce(rows, labels, queue.flatten(0, 1), ids, backend=backend, **options(case))
    loss.backward()
    torch.testing.assert_close(loss, case.tensor("loss_clean" + suffix), rtol=rtol, atol=0)
    torch.testing.assert_close(stored.grad, case.tensor("grad_clean" + suffix), rtol=0, atol=atol)


@pytest.mark.reference("pico", kind="joint")
@pytest.mark.parametrize(("dtype", "suffix", "rtol", "atol"), RUNS)
@pytest.mark.parametrize("seed", [0, 1])
def test_sampling_contrast_and_cross_entropy(case, seed, dtype, suffix, rtol, atol):
    meta = case.meta
    logits = case.tensor("seg_logits", dtype).requires_grad_()
    embed = case.tensor("embed", dtype).requires_grad_()
    target = case.tensor("target")
    ce = segmentation_cross_entropy(
        logits,
        target,
        ignore_index=meta["ignore_index"],
        class_weights=case.tensor("ce_weight", dtype),
        align_corners=meta["ce_align_corners"],
    )
    sample = sample_anchors(
        resize_labels(target, tuple(meta["feature_hw"])),
        logits.argmax(1),
        num_classes=meta["num_classes"],
        ignore_index=meta["ignore_index"],
        max_anchors=meta["max_samples"],
        max_views=meta["max_views"],
        min_pixels=meta["max_views"] + 1,  # the official code's condition for a group
        generator=torch.Generator().manual_seed(seed),
    )
    rows = embed.permute(0, 2, 3, 1).flatten(0, 2)[sample.index]
    contrast = pixel_info_nce(
        rows, sample.labels.masked_fill(~sample.valid, -1), backend="stream", **options(case)
    )
    joint = ce + meta["loss_weight"] * contrast
    joint.backward()
    torch.testing.assert_close(contrast, case.tensor("contrast_loss" + suffix), rtol=rtol, atol=0)
    for loss, name in ((ce, "ce_loss"), (joint, "joint_loss")):
        # cross-entropy is computed in float32 whatever it is given
        torch.testing.assert_close(loss.float(), case.tensor(name), rtol=1e-5, atol=0)
    if dtype == torch.float32:
        torch.testing.assert_close(logits.grad, case.tensor("grad_seg_logits"), rtol=0, atol=atol)
        group = case.tensor("group_of_pixel").flatten()
        pixels = embed.grad.permute(0, 2, 3, 1).flatten(0, 2)
        sums = torch.zeros(len(case.tensor("groups")), pixels.shape[1])
        sums.index_add_(0, group[group >= 0], pixels[group >= 0])
        torch.testing.assert_close(sums, case.tensor("grad_embed_group_sum"), rtol=0, atol=atol)
        assert not pixels[group < 0].any()
