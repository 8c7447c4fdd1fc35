"""Cases of the Triton back end; `test_triton_backend.py` runs them in processes of their own.

With TRITON_INTERPRET=1 the kernels run on the CPU, else on the GPU. The interpreter has to be
chosen before Triton is first imported, which a process shared with other tests cannot promise.
"""

import os
from contextlib import contextmanager, nullcontext
from itertools import pairwise

import pytest
import torch
from benchmarks.opcount import OpCount
from torch.utils._python_dispatch import _disable_current_modes

from pixelcontrast.losses import backends, fused, pixel_info_nce, triton_backend, triton_launch
from pixelcontrast.losses.triton_launch import Tile

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
FORMS = ("negatives", "all")
# Small enough that the little matrices below have tiles of every kind.
TINY = Tile(32, 16, 4, 1)


@pytest.fixture(autouse=True)
def _tiny_tiles(monkeypatch):
    if INTERPRETED:
        for table in (triton_launch.HOPPER_TILES, triton_launch.SMALL_TILES):
            for key in table:
                monkeypatch.setitem(table, key, TINY)
        monkeypatch.setattr(triton_launch, "_device_limits", lambda _: (1, 227 * 1024))


@pytest.fixture
def exact(monkeypatch):
    """The kernels on fp32 vectors, which the interpreter multiplies in fp32."""
    if not INTERPRETED:
        pytest.skip("on a GPU fp32 vectors are stored as fp16")
    one = torch.ones(())
    monkeypatch.setattr(triton_backend, "_kernel_format", lambda x, _: (x.contiguous(), one))


def reference(a, a_labels, b, b_labels, own, inv_temperature, form):
    """Losses and statistics from the full matrix, in the precision of the input."""
    logits = a @ b.T * inv_temperature
    same = a_labels[:, None] == b_labels[None, :]
    is_self = torch.zeros_like(same)
    if own is not None:
        is_self = torch.arange(len(b), device=b.device)[None, :] == own[:, None]
    positive = same & ~is_self
    denominator = ~same if form == "negatives" else ~is_self
    lse = logits.masked_fill(~denominator, float("-inf")).logsumexp(1)
    count = positive.sum(1)
    gap = lse[:, None].masked_fill(~denominator.any(1, keepdim=True), -1e30) - logits
    pairs = torch.nn.functional.softplus(gap) if form == "negatives" else gap
    loss = pairs.masked_fill(~positive, 0).sum(1) / count.clamp(min=1)
    share = torch.sigmoid(gap).masked_fill(~positive, 0).sum(1) / count.clamp(min=1)
    return loss, lse, count, share if form == "negatives" else torch.ones_like(share)


def unit(generator, rows, dim, labels, spread):
    """Unit vectors scattered about one direction a class."""
    centre = torch.randn(int(labels.max()) + 1, dim, generator=generator)
    vectors = centre[labels] + spread * torch.randn(rows, dim, generator=generator)
    return torch.nn.functional.normalize(vectors, dim=1)


def relative(value, truth):
    return float((value.double() - truth).norm() / truth.norm().clamp(min=1e-12))


def check(a, a_labels, b, b_labels, own, inv_temperature, form, tolerance, weight=None):
    """Forward and all backward roles against the reference in float64 on the same numbers."""
    a, a_labels, b, b_labels = (x.to(DEVICE) for x in (a, a_labels, b, b_labels))
    own = None if own is None else own.to(DEVICE)
    symmetric = a is b or (a.shape == b.shape and a.data_ptr() == b.data_ptr())
    exact_a = a.double().requires_grad_()
    exact_b = exact_a if symmetric else b.double().requires_grad_()
    truth = reference(exact_a, a_labels, exact_b, b_labels, own, inv_temperature, form)
    counts = torch.tensor([len(a), len(b)], device=DEVICE)
    got = triton_backend.forward(a, a_labels, b, b_labels, own, counts, inv_temperature, form)
    value_tolerance, gradient_tolerance = tolerance
    for mine, right in zip(got, truth, strict=True):
        assert mine.dtype == torch.float32
        finite = torch.isfinite(right)
        assert torch.equal(torch.isfinite(mine), finite)
        torch.testing.assert_close(
            mine[finite].double(),
            right[finite].double(),
            rtol=value_tolerance,
            atol=value_tolerance,
        )

    if weight is None:
        weight = torch.rand(len(a), generator=torch.Generator().manual_seed(1)) / len(a)
        weight[::7] = 0
    weight = weight.to(DEVICE)
    (weight.double() * truth[0]).sum().backward()
    grads = triton_backend.backward(
        *(a, a_labels, b, b_labels, own, counts, inv_temperature, form),
        *(*got[1:], weight, True, not symmetric, symmetric),
    )
    assert (grads[1] is None) == symmetric
    for mine, right in zip(grads, (exact_a.grad, exact_b.grad), strict=True):
        if mine is not None:
            assert mine.dtype == torch.float32
            assert torch.isfinite(mine).all()
            assert relative(mine, right) <= gradient_tolerance
    return got, grads


# name -> (class sizes of the anchors, of the keys or None for self contrast, D)
SHAPES = {
    "self": ([26, 3, 37, 1, 9], None, 32),
    "two classes, ragged": ([36, 47], None, 48),
    "whole tiles": ([32, 32, 16], None, 64),
    "many classes": ([2] * 35, None, 16),
    "singletons": ([1] * 40 + [2], None, 16),
    "one class": ([71], None, 32),
    "one anchor": ([1], None, 16),
    "cross": ([10, 0, 45, 9], [0, 30, 40, 13], 80),
    "few anchors": ([1, 2], [50, 31, 20], 32),
    "last class without keys": ([0, 20, 10], [20, 50, 0], 16),
    "no common class": ([10, 20, 0, 0], [0, 0, 40, 33], 16),
}


def build(name, spread=0.6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes, key_sizes, dim = SHAPES[name]
    a_labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    a = unit(generator, len(a_labels), dim, a_labels, spread)
    if key_sizes is None:
        return a, a_labels, a, a_labels, torch.arange(len(a))
    b_labels = torch.repeat_interleave(torch.arange(len(key_sizes)), torch.tensor(key_sizes))
    return a, a_labels, unit(generator, len(b_labels), dim, b_labels, spread), b_labels, None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.usefixtures("exact")
def test_fp32(name, form):
    check(*build(name), 1 / 0.1, form, (2e-6, 1e-5))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["self", "cross"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half(name, form, dtype):
    a, a_labels, b, b_labels, own = build(name)
    a_half = a.to(dtype)
    b_half = a_half if a is b else b.to(dtype)
    check(a_half, a_labels, b_half, b_labels, own, 1 / 0.1, form, (2e-6, 1e-3))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("processors", [3, 16])
@pytest.mark.usefixtures("exact")
def test_split_columns(form, processors, monkeypatch):
    monkeypatch.setattr(triton_launch, "_device_limits", lambda _: (processors, 227 * 1024))
    used = []
    plan = triton_launch.Launch.plan
    monkeypatch.setattr(triton_launch.Launch, "plan", lambda *x: used.append(plan(*x)) or used[-1])
    check(*build("few anchors" if processors == 3 else "self"), 1 / 0.1, form, (2e-6, 1e-5))
    assert max(launch.splits for launch in used) >= 3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.usefixtures("exact")
def test_anchors_that_are_some_of_the_keys(form):
    keys, key_labels, *_ = build("self")
    chosen = torch.arange(1, len(keys), 4)
    own = chosen.clone()
    own[::3] = -1  # these came from elsewhere
    check(keys[chosen], key_labels[chosen], keys, key_labels, own, 1 / 0.1, form, (2e-6, 1e-5))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("temperature", [0.01, 1.0])
@pytest.mark.usefixtures("exact")
def test_temperatures_and_signed_weights(form, temperature):
    problem = build("two classes, ragged")
    weight = torch.randn(83, generator=torch.Generator().manual_seed(2))
    # Logits of +-100 carry 24 bits, and the loss and its gradient are differences of them.
    tolerance = (2e-5, 5e-5) if temperature < 0.1 else (2e-6, 1e-5)
    check(*problem, 1 / temperature, form, tolerance, weight)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.usefixtures("exact")
def test_vectors_far_from_unit_length(form):
    a, labels, *_, own = build("self")
    a = 30 * a * torch.linspace(0.01, 1, len(a))[:, None]
    check(a, labels, a, labels, own, 1.0, form, (2e-5, 2e-4))  # logits up to 900


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("size", [1e-12, 1e12])
def test_range_beyond_fp16(dtype, size):
    a, labels, *_, own = build("self")
    a = (a * size).to(dtype)
    # fp32 vectors are rounded to 11 bits, bf16 ones not at all.
    tolerance = (2e-6, 1e-3) if dtype == torch.bfloat16 else (2e-2, 2e-3)
    check(a, labels, a, labels, own, 10.0 / size**2, "negatives", tolerance)


def test_negatives_opposite_the_anchor():
    """Zero padding is far nearer than any negative here: its weight would overflow fp16."""
    axis = torch.eye(16)
    labels = torch.tensor([0] * 9 + [1] * 12)
    keys = torch.stack([axis[1]] * 9 + [-axis[0]] * 12)
    keys = keys + 0.05 * torch.randn(keys.shape, generator=torch.Generator().manual_seed(4))
    anchors = (axis[:1] + 0.1 * axis[2:7]).half()
    anchor_labels = torch.zeros(5, dtype=torch.int64)
    check(anchors, anchor_labels, keys.half(), labels, None, 20.0, "negatives", (2e-6, 2e-3))


def test_rounding_of_weights_does_not_depend_on_their_size():
    a, labels, *_, own = build("self")
    a = a.half()
    weight = torch.full((len(a),), 1e-9)
    weight[5] = 3e-4
    for name in FORMS:
        check(a, labels, a, labels, own, 10.0, name, (2e-6, 1e-3), weight)


def test_keys_without_gradient_and_zero_weights():
    a, a_labels, b, b_labels, _ = build("cross")
    a, a_labels, b, b_labels = (x.to(DEVICE) for x in (a, a_labels, b, b_labels))
    counts = torch.tensor([len(a), len(b)], device=DEVICE)
    problem = (a, a_labels, b, b_labels, None, counts, 10.0, "negatives")
    statistics = triton_backend.forward(*problem)[1:]
    weight = torch.zeros(len(a), device=DEVICE)
    grad_a, grad_b = triton_backend.backward(*problem, *statistics, weight, True, False, False)
    assert grad_b is None
    assert torch.equal(grad_a, torch.zeros_like(grad_a))
    grad_a, grad_b = triton_backend.backward(*problem, *statistics, weight, False, True, False)
    assert grad_a is None
    assert torch.equal(grad_b, torch.zeros_like(grad_b))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("rows", "keys"), [(0, 5), (5, 0), (0, 0)])
def test_empty_sides(form, rows, keys):
    a, b = torch.ones(rows, 16, device=DEVICE), torch.ones(keys, 16, device=DEVICE)
    labels = [torch.zeros(n, dtype=torch.int64, device=DEVICE) for n in (rows, keys)]
    counts = torch.tensor([rows, keys], device=DEVICE)
    problem = (a, labels[0], b, labels[1], None, counts, 10.0, form)
    loss, lse, positives, q = triton_backend.forward(*problem)
    assert loss.shape == lse.shape == positives.shape == q.shape == (rows,)
    assert not loss.any()
    assert not positives.any()
    grads = triton_backend.backward(*problem, lse, positives, q, loss, True, True, False)
    assert [g.shape for g in grads] == [a.shape, b.shape]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["self", "cross", "few anchors"])
@pytest.mark.parametrize("known", [(0, 0), (1, 0), (0, 40), (33, 64), (1000, 1000)])
@pytest.mark.usefixtures("exact")
def test_rows_after_the_counts_are_not_read(name, form, known):
    a, a_labels, b, b_labels, own = build(name)
    counts = torch.tensor([min(known[0], len(a)), min(known[-1], len(b))])
    if a is b:
        counts[1] = counts[0]
    rows, keys = counts.tolist()
    problem = a[:rows], a_labels[:rows], b[:keys], b_labels[:keys]
    own = None if own is None else own[:rows]
    one, other = (torch.tensor(c) for c in ((rows, keys), (len(a), len(b))))
    truth = triton_backend.forward(*problem, own, one, 10.0, form)
    last = torch.iinfo(torch.int64).max
    a, a_labels, b, b_labels = a.clone(), a_labels.clone(), b.clone(), b_labels.clone()
    a[rows:], b[keys:] = float("nan"), float("inf")
    a_labels[rows:], b_labels[keys:] = last, last
    padded = torch.full((len(a) - rows,), -1)
    own = None if own is None else torch.cat([own, padded])
    assert torch.equal(other, torch.tensor([len(a), len(b)]))
    got = triton_backend.forward(a, a_labels, b, b_labels, own, one, 10.0, form)
    for mine, right in zip(got, truth, strict=True):
        torch.testing.assert_close(mine[:rows], right, rtol=1e-5, atol=1e-6)
    assert not got[0][rows:].any()
    assert not got[2][rows:].any()
    weight = torch.linspace(1, 2, len(a)) * (got[2] > 0)
    tail = (weight, True, True, False)
    problem = (*problem, None if own is None else own[:rows], one, 10.0, form)
    expected = triton_backend.backward(*problem, *truth[1:], weight[:rows], True, True, False)
    padded_problem = (a, a_labels, b, b_labels, own, one, 10.0, form)
    grads = triton_backend.backward(*padded_problem, *got[1:], *tail)
    for mine, right in zip(grads, expected, strict=True):
        torch.testing.assert_close(mine[: len(right)], right, rtol=1e-4, atol=1e-5)
        assert not mine[len(right) :].any()


@pytest.mark.parametrize("ignored", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", ["self", "keys", "both", "detached", "own"])
@pytest.mark.usefixtures("exact")
def test_the_planned_path_never_waits(monkeypatch, mode, form, ignored):
    """From the user's call to the gradient: right, and without a value read from the device."""
    generator = torch.Generator().manual_seed(7)
    y, z = (torch.randint(0, 5, (n,), generator=generator) for n in (61, 83))
    a, k = (unit(generator, len(ids), 16, ids, 0.6) for ids in (y, z))
    y, z = (
        ids.masked_fill(torch.rand(len(ids), generator=generator) < ignored, 255) for ids in (y, z)
    )
    options = {"denominator": form, "ignore_index": 255, "reduction": "none"}
    options["include_anchors"] = mode in ("self", "both")
    if mode == "own":
        k[:40], z[:40] = a[:40], y[:40]
        options["self_index_N"] = torch.arange(61).masked_fill(torch.arange(61) >= 40, -1)
    results = []
    for backend in ("naive", "triton"):
        x, w = a.clone().requires_grad_(), k.clone().requires_grad_(mode != "detached")
        keys = () if mode == "self" else (w, z)
        with no_waiting(monkeypatch) if backend == "triton" else nullcontext():
            loss = pixel_info_nce(x, y, *keys, **options, backend=backend)
            wanted = [x] if mode in ("self", "detached") else [x, w]
            grads = torch.autograd.grad((loss * torch.linspace(1, 2, 61)).sum(), wanted)
        results.append((loss, *grads))
    for right, mine in zip(*results, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-4, atol=2e-5)


@contextmanager
def no_waiting(monkeypatch):
    """Outside the kernels, which the interpreter runs on the host, nothing may read a value."""
    inside = []
    call = triton_launch.Launch.__call__

    def launch(*arguments, **flags):
        inside.append(True)
        with _disable_current_modes():
            call(*arguments, **flags)
        inside.pop()

    def refuse(name, original):
        def read(*arguments, **options):
            assert inside, f"Tensor.{name} makes the host wait"
            return original(*arguments, **options)

        return read

    with monkeypatch.context() as patch:
        patch.setattr(backends, "fits", lambda _: True)
        patch.setattr(fused, "fits", lambda _: True)
        patch.setattr(triton_launch.Launch, "__call__", launch)
        for name in ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__"):
            patch.setattr(torch.Tensor, name, refuse(name, getattr(torch.Tensor, name)))
        with OpCount() as seen:
            yield
    assert not seen.forcing


def test_repeated_calls_give_equal_bits():
    results = [check(*build("self"), 1 / 0.1, "negatives", (1e-2, 1e-2)) for _ in range(2)]
    for first, second in pairwise(results):
        for one, two in zip((*first[0], first[1][0]), (*second[0], second[1][0]), strict=True):
            assert torch.equal(one, two)


@pytest.mark.skipif(not INTERPRETED, reason="the other tests use the shipped tiles on a GPU")
@pytest.mark.parametrize("dim", [64, 256])
def test_shipped_tiles(dim, monkeypatch):
    for kernel in ("statistics", "positives", "gradient"):
        tile = Tile(128, 64, 8, 3) if kernel != "statistics" else Tile(128, 128, 8, 3)
        monkeypatch.setitem(triton_launch.HOPPER_TILES, (kernel, dim), tile)
    labels = torch.arange(200).div(60, rounding_mode="floor")
    a = unit(torch.Generator().manual_seed(3), 200, dim, labels, 0.6).half()
    check(a, labels, a, labels, torch.arange(200), 10.0, "negatives", (2e-6, 1e-3))
