"""Whole rows with a closed-form gradient against full-matrix autograd."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from benchmarks.opcount import OpCount
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.losses.engines import MODES, distance, run

from pixelcontrast.losses import matrix, pixel_info_nce

FORMS = ("negatives", "all")


@pytest.mark.parametrize(
    ("mode", "denominator", "scoped", "temperature", "pairs"),
    list(itertools.product(MODES, FORMS, [False, True], [0.07, 0.001], [2**22, 1000])),
)
def test_float64_equals_autograd(
    unit_rows, monkeypatch, mode, denominator, scoped, temperature, pairs
):
    monkeypatch.setattr(matrix, "PAIRS", pairs)  # in one piece, and in blocks of rows
    a, y = unit_rows(77, 8, 5, seed=1, skew=1.0)
    k, z = unit_rows(101, 8, 6, seed=2, skew=1.0)
    options = {"temperature": temperature, "denominator": denominator}
    if scoped:
        options |= {"images": torch.arange(77) % 3, "key_images": torch.arange(101) % 4 - 1}
    upstream = torch.linspace(0.5, 2, 77, dtype=a.dtype)
    mine, truth = (
        run(backend, mode, a, y, k, z, upstream, **options) for backend in ("matrix", "naive")
    )
    assert max(distance(left, right) for left, right in zip(mine, truth, strict=True)) < 1e-12


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 40),
    keys=st.integers(0, 50),
    classes=st.integers(1, 20),
    pairs=st.sampled_from([1, 100, 10_000]),
    mode=st.sampled_from(MODES),
    denominator=st.sampled_from(FORMS),
    ignored=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 9),
)
def test_any_shape(unit_rows, count, keys, classes, pairs, mode, denominator, ignored, seed):
    a, y = unit_rows(max(count, 1), 4, classes, seed=seed, ignored=ignored)
    k, z = unit_rows(max(keys, 1), 4, classes, seed=seed + 1)
    # every negative label is ignored, and none of them is a class
    a, y, k, z = a[:count], y[:count] * 3 // 2, k[:keys], z[:keys] * 3 // 2
    upstream = torch.ones(count, dtype=a.dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix, "PAIRS", pairs)
        mine = run("matrix", mode, a, y, k, z, upstream, denominator=denominator)
    truth = run("naive", mode, a, y, k, z, upstream, denominator=denominator)
    for left, right in zip(mine, truth, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("denominator", FORMS)
@pytest.mark.parametrize("mode", ["self", "keys", "both", "detached"])
def test_gradcheck(unit_rows, mode, denominator):
    a, y = unit_rows(21, 3, 3, seed=1)
    k, z = unit_rows(18, 3, 3, seed=2)

    def loss(a, k):
        keys = () if mode == "self" else (k, z)
        options = {"denominator": denominator, "temperature": 0.5, "backend": "matrix"}
        options["include_anchors"] = mode in ("self", "both")
        return pixel_info_nce(a, y, *keys, reduction="none", **options)

    a.requires_grad_()
    assert torch.autograd.gradcheck(loss, (a, k.requires_grad_(mode in ("keys", "both"))))


@pytest.mark.parametrize(("denominator", "limit"), [("negatives", 2e-6), ("all", 2e-5)])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_float32_is_as_exact_as_autograd(unit_rows, denominator, limit, spread):
    noise, y = unit_rows(400, 32, 7, seed=3, skew=1.0)
    centres = F.normalize(torch.eye(32, dtype=noise.dtype)[:8], dim=1)
    a = F.normalize(centres[y] + spread * noise, dim=1)
    upstream = torch.full((400,), 1 / 400, dtype=a.dtype)
    options = {"temperature": 0.07, "denominator": denominator}
    exact = run("naive", "self", a, y, a, y, upstream, **options)
    mine, naive = (
        run(backend, "self", a.float(), y, a.float(), y, upstream.float(), **options)
        for backend in ("matrix", "naive")
    )
    assert distance(mine[1].double(), exact[1]) < max(limit, distance(naive[1].double(), exact[1]))
    assert mine[0].mean().item() == pytest.approx(exact[0].mean().item(), rel=2e-6, abs=1e-7)


@pytest.mark.parametrize("temperature", [0.01, 0.05])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("denominator", FORMS)
def test_float32_is_finite_and_right_at_low_temperature(unit_rows, mode, temperature, denominator):
    a, y = unit_rows(90, 8, 2, dtype=torch.float32)
    k, z = torch.cat([a, -a]), torch.cat([y, y])  # antipodal positives: the largest loss there is
    upstream = torch.ones(90)
    options = {"temperature": temperature, "denominator": denominator}
    mine = run("matrix", mode, a, y, k, z, upstream, **options)
    exact = run("naive", mode, a.double(), y, k.double(), z, upstream.double(), **options)
    assert exact[0].max() > 0.9 / temperature
    for left, right in zip(mine, exact, strict=True):
        assert distance(left.double(), right) < 2e-5


def test_vectors_of_any_length(unit_rows):
    a, y = unit_rows(60, 8, 4)
    k, z = unit_rows(50, 8, 4, seed=1)
    upstream = torch.ones(60, dtype=a.dtype)
    for mode in MODES:
        mine, truth = (
            run(backend, mode, a * 300, y, k * 40, z, upstream) for backend in ("matrix", "naive")
        )
        assert max(distance(left, right) for left, right in zip(mine, truth, strict=True)) < 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", MODES)
def test_half_precision_inputs(unit_rows, dtype, mode):
    a, y = unit_rows(100, 32, 5)
    k, z = unit_rows(80, 32, 5, seed=1)
    a, k = a.to(dtype), k.to(dtype)
    loss, *grads = run("matrix", mode, a, y, k, z, torch.ones(100))
    exact = run("naive", mode, a.double(), y, k.double(), z, torch.ones(100).double())
    assert loss.dtype == torch.float32
    assert distance(loss.double(), exact[0]) < 2e-6
    for grad, right in zip(grads, exact[1:], strict=True):
        assert grad.dtype == dtype
        assert (grad.double() - right).norm() / right.norm() < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("mode", MODES)
def test_autocast_changes_nothing_and_bits_repeat(unit_rows, mode):
    a, y = unit_rows(80, 16, 3, dtype=torch.float32)
    k, z = unit_rows(70, 16, 3, seed=1, dtype=torch.float32)
    plain = run("matrix", mode, a, y, k, z, torch.ones(80))
    again = run("matrix", mode, a, y, k, z, torch.ones(80))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = run("matrix", mode, a, y, k, z, torch.ones(80))
    for left, right in ((plain, again), (plain, inside)):
        assert all(torch.equal(one, two) for one, two in zip(left, right, strict=True))


@pytest.mark.parametrize("mode", ["self", "both", "detached"])
def test_second_backward_and_second_derivative(unit_rows, mode):
    a, y = unit_rows(40, 8, 3)
    k, z = unit_rows(30, 8, 3, seed=1)
    a.requires_grad_()
    keys = () if mode == "self" else (k, z)
    loss = pixel_info_nce(a, y, *keys, include_anchors=mode != "detached", backend="matrix")
    first = torch.autograd.grad(loss, a, retain_graph=True)[0]
    second = torch.autograd.grad(loss, a, retain_graph=True)[0]
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, a, create_graph=True)


@pytest.mark.parametrize("mode", ["self", "both"])
def test_compiles_without_a_break(unit_rows, mode):
    a, y = unit_rows(40, 8, 3, dtype=torch.float32)
    keys = () if mode == "self" else unit_rows(30, 8, 3, seed=1, dtype=torch.float32)

    def step(a):
        rows = F.normalize(a * 2, dim=1)
        return pixel_info_nce(rows, y, *keys, include_anchors=True, backend="matrix") * 3

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    left, right = a.clone().requires_grad_(), a.clone().requires_grad_()
    step(left).backward()
    compiled(right).backward()
    torch.testing.assert_close(left.grad, right.grad)


def test_few_operations_and_none_that_waits(unit_rows):
    a, y = unit_rows(64, 8, 3, dtype=torch.float32)
    k, z = unit_rows(50, 8, 3, seed=1, dtype=torch.float32)
    a.requires_grad_()
    for keys, most in (((), 45), ((k, z), 47)):
        with OpCount() as forward:
            loss = pixel_info_nce(a, y, *keys, include_anchors=True, backend="matrix")
        with OpCount() as backward:
            loss.backward()
        assert forward.total <= most, forward.total
        assert backward.total <= 20, backward.total
        assert not forward.forcing
        assert not backward.forcing
