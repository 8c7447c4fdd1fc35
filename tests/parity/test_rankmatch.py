"""Landmarks, rank distributions, the rank loss and feature CutMix against the released code.

`*_exact` are the paper's formula in float64; the code's own losses lack probability where a softmax
saturates, and are then not to be matched.
"""

import math

import pytest
import torch
from torch import Tensor

from pixelcontrast.data.mixing import paste
from pixelcontrast.losses import rank_consistency, rank_divergence, rank_log_probabilities
from pixelcontrast.losses.maps import subsample_labels
from pixelcontrast.sampling import select_landmarks

KINDS = {"rank_", "prob2rank", "featmix"}


def test_every_case_has_a_check(reference_cases):
    assert {c.kind for c in reference_cases("rankmatch")} <= KINDS


def chosen(case):
    first = case.tensor("first_landmark_index")
    return select_landmarks(case.tensor("feat_w"), case.meta["num_landmarks"], first)


def orders(teacher: Tensor, student: Tensor, k: int):
    """Order probabilities of both from class-like probabilities, on the teacher's top k."""
    top, at = teacher.topk(k, dim=-1)
    return [rank_log_probabilities(p.log()).exp() for p in (top, student.gather(-1, at))]


@pytest.mark.reference("rankmatch", kind="rank_")
def test_landmarks(case):
    found = chosen(case)
    assert found.present.all()
    assert torch.equal(found.index, case.tensor("landmark_index_selection_order"))
    raster = case.tensor("landmark_index_raster_order")
    assert torch.equal(found.index.sort(1).values, raster)


@pytest.mark.reference("rankmatch", kind="rank_")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_and_gradient(case, dtype):
    weak, strong = case.tensor("feat_w", dtype), case.tensor("feat_s", dtype).requires_grad_()
    k = case.meta["k"]
    loss = rank_consistency(strong, weak, chosen(case).index, k=k).loss
    loss.backward()
    exact = float(case.arrays["loss_exact"])
    close = {torch.float32: 1e-5, torch.float64: 1e-9}[dtype]
    assert loss.item() == pytest.approx(exact, rel=close)
    expected = case.tensor("grad_feat_s_exact")
    size = expected.abs().max().item()
    torch.testing.assert_close(
        strong.grad.double(), expected, rtol=10 * close, atol=size * 10 * close
    )
    if min(float(case.arrays[f"rank_sum_{view}_min"]) for view in "ws") > 1 - 1e-5:
        official = float(case.arrays["loss_official"]) * math.factorial(k)
        assert loss.item() == pytest.approx(official, rel=1e-5)
        released = case.tensor("grad_feat_s_official", torch.float64) * math.factorial(k)
        torch.testing.assert_close(strong.grad.double(), released, rtol=1e-3, atol=size * 1e-4)


@pytest.mark.reference("rankmatch", kind="rank_")
def test_distributions(case):
    k = case.meta["k"]
    weak, strong = (case.tensor(f"feat_{v}", torch.float64).flatten(2) for v in "ws")
    index = case.tensor("landmark_index_raster_order")[:, None].expand(-1, weak.shape[1], -1)
    logits = [torch.einsum("bfp,bfn->bpn", part, part.gather(2, index)) for part in (weak, strong)]
    for part, view in zip(logits, "ws", strict=True):
        official = case.tensor(f"prob_{view}_official", torch.float64).flatten(1, 2)
        torch.testing.assert_close(part.softmax(2), official, rtol=0, atol=1e-5)
    top, at = logits[0].topk(k, dim=2)
    for part, view in ((top, "w"), (logits[1].gather(2, at), "s")):
        found = rank_log_probabilities(part).exp()
        torch.testing.assert_close(found.sum(2), torch.ones_like(found[..., 0]))
        if float(case.arrays[f"rank_sum_{view}_min"]) > 1 - 1e-5:
            official = case.tensor(f"rank_{view}_official", torch.float64).flatten(1, 2)
            torch.testing.assert_close(found, official, rtol=0, atol=1e-6)


@pytest.mark.reference("rankmatch", kind="prob2rank")
def test_orders_of_given_probabilities(case):
    teacher, student = case.tensor("prob_w"), case.tensor("prob_s")
    k = case.meta["k"]
    found = orders(teacher, student, k)
    for view, part in zip("ws", found, strict=True):
        torch.testing.assert_close(part, case.tensor(f"rank_{view}"), rtol=0, atol=1e-6)
    top, at = teacher.topk(k, dim=-1)
    divergence = rank_divergence(top.log(), student.gather(-1, at).log())
    expected = (found[0] * (found[0] / found[1]).log()).sum(-1)
    torch.testing.assert_close(divergence, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.reference("rankmatch", kind="featmix")
def test_cutmix_on_the_coarse_grid(case):
    own, other = case.tensor("feat_u_w"), case.tensor("feat_u_w_mix")
    size = (own.shape[-2], own.shape[-1])
    keep = subsample_labels(case.tensor("cutmix_box") == 0, size)
    torch.testing.assert_close(
        paste(keep, own, other), case.tensor("feat_mixed_official"), rtol=0, atol=1e-6
    )
