"""UniMatch V1 and V2 and hard-example mining against the released code of Yang et al."""

import pytest
import torch

from pixelcontrast.data.mixing import MixInput, mix, paste
from pixelcontrast.losses import masked_consistency, segmentation_cross_entropy
from pixelcontrast.methods.unimatch import complementary_masks
from pixelcontrast.sampling import confident, pseudo_labels


def test_every_case_has_a_check(reference_cases):
    assert {c.kind for c in reference_cases("unimatch")} <= {"unimatch_v1", "unimatch_v2", "ohem"}


def scalar(case, name):
    return float(case.arrays[name])


def leaf(case, name):
    return case.tensor(name).requires_grad_()


def labelled(case, logits="pred_u_w", ignored="ignore_mask", image="pred_u_w"):
    """A map (any image stands in) with the pseudo-labels of stored weak logits."""
    found = pseudo_labels(case.tensor(logits), case.tensor(ignored) != 255)
    return MixInput(case.tensor(image), found.labels, found.confidence, found.valid)


def masked(case, logits, view):
    keep = view.valid & (view.confidence >= scalar(case, "conf_thresh"))
    return masked_consistency(logits, view.label, keep, view.valid)


def check(case, leaves, values, total):
    """Losses and the gradients of the total."""
    for name, value in values.items():
        assert value.item() == pytest.approx(scalar(case, name), rel=1e-5), name
    assert total.item() == pytest.approx(scalar(case, "loss"), rel=1e-5)
    for name, gradient in zip(leaves, torch.autograd.grad(total, leaves.values()), strict=True):
        torch.testing.assert_close(gradient, case.tensor(f"grad_{name}"), rtol=1e-4, atol=1e-7)


@pytest.mark.reference("unimatch", kind="unimatch_v1")
def test_v1(case):
    own, partner = labelled(case), labelled(case, "pred_u_w_mix", "ignore_mask_mix")
    leaves = {n: leaf(case, n) for n in ("pred_x", "pred_u_s1", "pred_u_s2", "pred_u_w_fp")}
    mixed = [mix(own, case.tensor(f"cutmix_box{v}") == 0, partner) for v in (1, 2)]
    x = segmentation_cross_entropy(leaves["pred_x"], case.tensor("mask_x"))
    s1, s2 = (
        masked(case, leaves[f"pred_u_s{v}"], view) for v, view in zip((1, 2), mixed, strict=True)
    )
    fp = masked(case, leaves["pred_u_w_fp"], own)
    if "pseudo_mask_mixed1" in case.arrays:
        assert torch.equal(mixed[0].label, case.tensor("pseudo_mask_mixed1").long())
        keep = mixed[0].valid & (mixed[0].confidence >= scalar(case, "conf_thresh"))
        assert keep.sum() == scalar(case, "kept_pixels1")
        assert mixed[0].valid.sum() == scalar(case, "valid_pixels1")
    values = {"loss_x": x, "loss_u_s1": s1, "loss_u_s2": s2, "loss_u_w_fp": fp}
    check(case, leaves, values, (x + 0.25 * (s1 + s2) + 0.5 * fp) / 2)


@pytest.mark.reference("unimatch", kind="unimatch_v2")
def test_v2(case):
    found = pseudo_labels(case.tensor("pred_u_w"), case.tensor("ignore_mask") != 255)
    assert torch.equal(confident(found, 0.0), found.valid)
    leaves = {n: leaf(case, n) for n in ("pred_x", "pred_u_s1", "pred_u_s2")}
    losses = []
    for v in (1, 2):
        own = MixInput(case.tensor(f"img_u_s{v}"), found.labels, found.confidence, found.valid)
        partner = MixInput(*(p.flip(0) for p in (own.image, own.label, own.confidence, own.valid)))
        keep = case.tensor(f"cutmix_box{v}") == 0
        view = mix(own, keep, partner)
        assert torch.equal(view.image, case.tensor(f"img_u_s{v}_mixed"))
        assert torch.equal(view.image, paste(keep, own.image, partner.image))
        losses.append(masked(case, leaves[f"pred_u_s{v}"], view))
    x = segmentation_cross_entropy(leaves["pred_x"], case.tensor("mask_x"))
    values = {"loss_x": x, "loss_u_s1": losses[0], "loss_u_s2": losses[1]}
    values["loss_u_s"] = (losses[0] + losses[1]) / 2
    check(case, leaves, values, (x + values["loss_u_s"]) / 2)


@pytest.mark.reference("unimatch", kind="unimatch_v2")
def test_complementary_dropout(case):
    masks = complementary_masks(
        case.tensor("dropout_bernoulli_draw"), case.tensor("dropout_randperm_draw")
    )
    assert torch.equal(torch.cat(masks), case.tensor("dropout_mask"))


@pytest.mark.reference("unimatch", kind="ohem")
def test_hard_example_mining(case):
    scores = leaf(case, "pred")
    loss = segmentation_cross_entropy(
        scores,
        case.tensor("target"),
        ohem_threshold=scalar(case, "thresh"),
        ohem_min_kept=int(case.arrays["min_kept"]),
    )
    loss.backward()
    assert loss.item() == pytest.approx(scalar(case, "loss"), rel=1e-5)
    torch.testing.assert_close(scores.grad, case.tensor("grad_pred"), rtol=1e-4, atol=1e-7)
    assert (scores.grad != 0).any(1).sum() == scalar(case, "pixels_with_gradient")
