"""The wrapper around the GPU kernels, with kernels replaced by full matrices."""

import pytest
import torch

from pixelcontrast.losses import backends, fused, pixel_info_nce


def forward(a, labels, b, key_labels, own, counts, inv_temperature, denominator):
    """What the kernels return, from the whole matrix; also checks what they are promised."""
    for ids, count in zip((labels, key_labels), counts, strict=True):
        assert (ids >= 0).all()
        assert (ids.diff() >= 0).all()
        assert (ids < fused.LAST).sum() == count
    b, key_labels = b[: counts[1]], key_labels[: counts[1]]
    s = a.float() @ b.float().T * inv_temperature
    apart = torch.ones_like(s, dtype=torch.bool)
    if own is not None:
        apart = own[:, None] != torch.arange(len(b))
    positive = (labels[:, None] == key_labels) & apart
    below = apart & ~positive if denominator == "negatives" else apart
    lse = s.masked_fill(~below, float("-inf")).logsumexp(1)
    count = positive.sum(1).float()
    over = lse[:, None] - s
    each = torch.nn.functional.softplus(over) if denominator == "negatives" else over
    loss = (each.masked_fill(~positive, 0)).sum(1) / count.clamp_min(1)
    share = (over.sigmoid() * positive).sum(1) / count.clamp_min(1)
    return loss, lse, count, share if denominator == "negatives" else torch.ones_like(lse)


def backward(
    a, la, b, lb, own, counts, inv_t, form, lse, count, q, weight, need_a, need_b, symmetric
):
    with torch.enable_grad():
        x = a.detach().requires_grad_()
        y = x if symmetric else b.detach().requires_grad_()
        loss = forward(x, la, y, lb, own, counts, inv_t, form)[0]
        grads = torch.autograd.grad((loss * weight).sum(), [x] if symmetric else [x, y])
    return (grads[0] if need_a else None), (grads[1] if need_b and not symmetric else None)


@pytest.fixture(autouse=True)
def _full_matrix_kernels(monkeypatch):
    monkeypatch.setattr(fused.triton_backend, "forward", forward)
    monkeypatch.setattr(fused.triton_backend, "backward", backward)
    monkeypatch.setattr(backends, "fits", lambda _: True)


@pytest.mark.parametrize("denominator", ["negatives", "all"])
@pytest.mark.parametrize("mode", ["self", "keys", "own", "both", "detached"])
def test_sorting_and_placing_back(unit_rows, mode, denominator):
    a, y = unit_rows(40, 8, 4, dtype=torch.float32)
    k, z = unit_rows(30, 8, 5, seed=1, dtype=torch.float32)
    k[:10], z[:10] = a[5:15], y[5:15]
    own = torch.full((40,), -1)
    own[5:15] = torch.arange(10)
    results = []
    for backend in ("triton", "naive"):
        x, w = a.clone().requires_grad_(), k.clone().requires_grad_(mode != "detached")
        options = {"denominator": denominator, "backend": backend, "reduction": "none"}
        if mode == "self":
            loss = pixel_info_nce(x, y, **options)
        else:
            index = own if mode == "own" else None
            both = mode == "both"
            loss = pixel_info_nce(x, y, w, z, self_index_N=index, include_anchors=both, **options)
        wanted = [x] if mode in ("self", "detached") else [x, w]
        upstream = torch.linspace(1, 2, 40)
        results.append((loss, *torch.autograd.grad((loss * upstream).sum(), wanted)))
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=2e-5)


def test_nothing_to_contrast(unit_rows):
    a, y = unit_rows(6, 8, 2, dtype=torch.float32, ignored=1.0)
    a.requires_grad_()
    loss = pixel_info_nce(a, y, backend="triton")
    loss.backward()
    assert loss == 0
    assert not a.grad.any()


def test_second_derivative_is_refused(unit_rows):
    a, y = unit_rows(6, 8, 2, dtype=torch.float32)
    a.requires_grad_()
    loss = pixel_info_nce(a, y, backend="triton")
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, a, create_graph=True)
