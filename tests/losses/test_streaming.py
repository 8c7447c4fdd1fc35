"""The tiled engine against full-matrix autograd."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.losses.engines import MODES, distance, run

from pixelcontrast.losses import pixel_info_nce, streaming


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles of a few rows, so that small problems have pure, mixed, ragged and skipped ones."""
    monkeypatch.setattr(streaming, "tile_size", lambda *_: 16)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    ("mode", "denominator", "scoped", "temperature", "kept"),
    list(
        itertools.product(MODES, ["negatives", "all"], [False, True], [0.07, 0.001], [False, True])
    ),
)
def test_float64_equals_the_full_matrix(
    unit_rows, monkeypatch, mode, denominator, scoped, temperature, kept
):
    # at 0.001 a float64 exponential would overflow: the form with a running maximum
    monkeypatch.setattr(streaming, "KEPT_BYTES", 2**25 if kept else 0)
    a, y = unit_rows(77, 8, 5, seed=1, skew=1.0)
    k, z = unit_rows(101, 8, 6, seed=2, skew=1.0)
    options = {"temperature": temperature, "denominator": denominator}
    if scoped:
        options |= {"images": torch.arange(77) % 3, "key_images": torch.arange(101) % 4 - 1}
    upstream = torch.linspace(0.5, 2, 77, dtype=a.dtype)
    pairs = zip(
        run("stream", mode, a, y, k, z, upstream, **options),
        run("naive", mode, a, y, k, z, upstream, **options),
        strict=True,
    )
    assert max(distance(left, right) for left, right in pairs) < 1e-12


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 90),
    keys=st.integers(0, 70),
    classes=st.integers(1, 40),
    tile=st.sampled_from([16, 32, 48]),
    mode=st.sampled_from(MODES),
    denominator=st.sampled_from(["negatives", "all"]),
    ignored=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 9),
)
def test_any_shape(unit_rows, count, keys, classes, tile, mode, denominator, ignored, seed):
    a, y = unit_rows(count, 4, classes, seed=seed, ignored=ignored)
    k, z = unit_rows(max(keys, 1), 4, classes, seed=seed + 1)
    k, z = k[:keys], z[:keys]
    upstream = torch.ones(count, dtype=a.dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "tile_size", lambda *_: tile)
        patch.setattr(streaming, "KEPT_BYTES", 0)
        tiled = run("stream", mode, a, y, k, z, upstream, denominator=denominator)
    full = run("naive", mode, a, y, k, z, upstream, denominator=denominator)
    for left, right in zip(tiled, full, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("denominator", ["negatives", "all"])
@pytest.mark.parametrize("mode", ["self", "keys", "detached"])
def test_gradcheck(unit_rows, monkeypatch, mode, denominator):
    monkeypatch.setattr(streaming, "tile_size", lambda *_: 16)
    monkeypatch.setattr(streaming, "KEPT_BYTES", 0)
    a, y = unit_rows(21, 3, 3, seed=1)
    k, z = unit_rows(18, 3, 3, seed=2)

    def loss(a, k):
        keys = () if mode == "self" else (k, z)
        options = {"denominator": denominator, "temperature": 0.5, "backend": "stream"}
        return pixel_info_nce(a, y, *keys, reduction="none", **options)

    a.requires_grad_()
    assert torch.autograd.gradcheck(loss, (a, k.requires_grad_(mode == "keys")))


@pytest.mark.parametrize(("denominator", "limit"), [("negatives", 2e-6), ("all", 2e-5)])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_float32_is_as_exact_as_the_full_matrix(unit_rows, denominator, limit, spread):
    noise, y = unit_rows(700, 32, 7, seed=3, skew=1.0)
    centres = F.normalize(torch.eye(32, dtype=noise.dtype)[:8], dim=1)
    a = F.normalize(centres[y] + spread * noise, dim=1)
    upstream = torch.full((700,), 1 / 700, dtype=a.dtype)
    options = {"temperature": 0.07, "denominator": denominator}
    exact = run("naive", "self", a, y, a, y, upstream, **options)
    halves = [
        run(backend, "self", a.float(), y, a.float(), y, upstream.float(), **options)
        for backend in ("stream", "naive")
    ]
    stream, naive = (distance(half[1].double(), exact[1]) for half in halves)
    assert stream < max(limit, naive)
    value = halves[0][0]
    assert value.dtype == torch.float32
    assert value.mean().item() == pytest.approx(exact[0].mean().item(), rel=2e-6, abs=1e-7)


@pytest.mark.parametrize("temperature", [0.01, 0.03, 0.05])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("denominator", ["negatives", "all"])
def test_float32_is_finite_and_right_at_low_temperature(unit_rows, mode, temperature, denominator):
    a, y = unit_rows(90, 8, 2, dtype=torch.float32)
    k, z = torch.cat([a, -a]), torch.cat([y, y])  # antipodal positives: the largest loss there is
    upstream = torch.ones(90)
    options = {"temperature": temperature, "denominator": denominator}
    tiled = run("stream", mode, a, y, k, z, upstream, **options)
    exact = run("naive", mode, a.double(), y, k.double(), z, upstream.double(), **options)
    assert exact[0].max() > 0.9 / temperature
    for left, right in zip(tiled, exact, strict=True):
        assert distance(left.double(), right) < 2e-5


def test_vectors_of_any_length(unit_rows):
    a, y = unit_rows(60, 8, 4)
    k, z = unit_rows(50, 8, 4, seed=1)
    upstream = torch.ones(60, dtype=a.dtype)
    for mode in MODES:
        tiled = run("stream", mode, a * 300, y, k * 40, z, upstream)
        full = run("naive", mode, a * 300, y, k * 40, z, upstream)
        assert max(distance(left, right) for left, right in zip(tiled, full, strict=True)) < 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", MODES)
def test_half_precision_inputs(unit_rows, dtype, mode):
    """Exact similarities of the rounded vectors, sums in float32, gradient in the input's type."""
    a, y = unit_rows(300, 32, 5)
    k, z = unit_rows(200, 32, 5, seed=1)
    a, k = a.to(dtype), k.to(dtype)
    upstream = torch.ones(300)
    loss, *grads = run("stream", mode, a, y, k, z, upstream)
    exact = run("naive", mode, a.double(), y, k.double(), z, upstream.double())
    assert loss.dtype == torch.float32
    assert distance(loss.double(), exact[0]) < 2e-6
    for grad, right in zip(grads, exact[1:], strict=True):
        assert grad.dtype == dtype
        error = (grad.double() - right).norm() / right.norm()
        assert error < 2 * torch.finfo(dtype).eps


def test_half_precision_leaves_the_process_setting_alone(unit_rows):
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    before = getattr(matmul, "fp32_precision", None)
    a, y = unit_rows(40, 16, 3, dtype=torch.bfloat16)
    a.requires_grad_()
    pixel_info_nce(a, y, backend="stream").backward()
    assert getattr(matmul, "fp32_precision", None) == before


def test_mixed_types_of_anchors_and_memory(unit_rows):
    a, y = unit_rows(40, 16, 3, dtype=torch.float32)
    k, z = unit_rows(70, 16, 3, seed=1)
    upstream = torch.ones(40)
    half = run("stream", "detached", a, y, k.half(), z, upstream)
    full = run("naive", "detached", a, y, k.half().float(), z, upstream)
    assert max(distance(left, right) for left, right in zip(half, full, strict=True)) < 2e-6


def test_autocast_changes_nothing(unit_rows):
    a, y = unit_rows(80, 16, 3, dtype=torch.float32)
    upstream = torch.ones(80)
    plain = run("stream", "self", a, y, a, y, upstream)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = run("stream", "self", a, y, a, y, upstream)
    assert all(torch.equal(left, right) for left, right in zip(plain, inside, strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_bitwise_repeatable(unit_rows, mode):
    a, y = unit_rows(600, 24, 9, dtype=torch.float32)
    k, z = unit_rows(500, 24, 9, seed=1, dtype=torch.float32)
    first, second = (run("stream", mode, a, y, k, z, torch.ones(600)) for _ in range(2))
    assert all(torch.equal(left, right) for left, right in zip(first, second, strict=True))


def test_sorted_keys_are_not_copied(unit_rows):
    k, z = unit_rows(64, 8, 4, ignored=0.0)
    z = z.sort().values
    contrast = _contrast(k[:10], z[:10], k, z)
    plan = streaming.make_plan(contrast, torch.ones(10, dtype=torch.long))
    assert plan.key_rows.order is None
    tile = plan.key_rows.take_tile(k, plan.key_rows.tiles[0], k.dtype)
    assert tile.data_ptr() == k.data_ptr()


def _contrast(a, y, k, z):
    from pixelcontrast.losses.problem import Contrast, KeySet

    return Contrast(a, y, None, KeySet(k, z, None, None), False, 10.0, "negatives")


def test_keys_without_gradient_get_none_and_anchors_keep_theirs(unit_rows):
    a, y = unit_rows(30, 8, 3)
    k, z = unit_rows(30, 8, 3, seed=1)
    k.requires_grad_()
    loss = pixel_info_nce(a, y, k, z, backend="stream")  # prototypes alone learn
    full = pixel_info_nce(a, y, k, z, backend="naive")
    (grad,) = torch.autograd.grad(loss, k)
    (expected,) = torch.autograd.grad(full, k)
    torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-15)
    assert not pixel_info_nce(a, y, k.detach(), z, backend="stream").requires_grad


def test_second_backward_and_second_derivative(unit_rows):
    a, y = unit_rows(40, 8, 3)
    a.requires_grad_()
    loss = pixel_info_nce(a, y, backend="stream")
    first = torch.autograd.grad(loss, a, retain_graph=True)[0]
    second = torch.autograd.grad(loss, a, retain_graph=True)[0]
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss, a, create_graph=True)


def test_inside_a_compiled_function(unit_rows):
    a, y = unit_rows(40, 8, 3, dtype=torch.float32)

    def step(a):
        return pixel_info_nce(F.normalize(a * 2, dim=1), y, backend="stream") * 3

    compiled = torch.compile(step, backend="eager")
    left, right = a.clone().requires_grad_(), a.clone().requires_grad_()
    step(left).backward()
    compiled(right).backward()
    assert torch.equal(left.grad, right.grad)


def test_memory_is_linear(monkeypatch):
    """No tensor of the sweeps is larger than a tile or a copy of the embeddings."""
    largest = 0
    a = F.normalize(torch.randn(3000, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    y = torch.arange(3000) % 7

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    with Watch():
        loss = pixel_info_nce(a.requires_grad_(), y, backend="stream")
        loss.backward()
    tile = streaming.tile_size(3000, a.device)
    # tiles that end with a class may grow by half
    assert largest <= max((1.5 * tile) ** 2, a.numel()) < 3000**2 / 10
    assert math.isfinite(loss.item())
