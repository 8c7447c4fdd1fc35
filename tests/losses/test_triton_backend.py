"""The Triton back end: numbers (in a process of its own), choice of tiles, compiled resources."""

import importlib.util
import os
import runpy
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch

from pixelcontrast.losses import triton_backend, triton_launch
from pixelcontrast.losses.triton_launch import (
    HOPPER_TILES,
    SMALL_TILES,
    padded,
    split_count,
)

ROOT = Path(__file__).parents[2]
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


def run(*arguments, **environment):
    """Run Python on files of the repository; its output becomes the message of a failure."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("TRITON_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**inherited, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_cases(**environment):
    """Run every test of `triton_cases.py`; pytest fails when it finds none."""
    cases = Path(__file__).with_name("triton_cases.py")
    options = ("-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning")
    return run("-m", "pytest", *options, cases, **environment)


@needs_triton
def test_interpreted_kernels_equal_the_full_matrix():
    run_cases(TRITON_INTERPRET="1", CUDA_VISIBLE_DEVICES="")


@pytest.mark.slow
@pytest.mark.skipif(not triton_backend.triton_available(), reason="no NVIDIA GPU with Triton")
def test_kernels_on_the_gpu_equal_the_full_matrix():
    run_cases()


def compile_for_hopper(*arguments):
    pytest.importorskip("triton")
    import triton

    ptxas = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    if not ptxas.exists():
        pytest.skip("this Triton comes without ptxas")
    lines = run(ROOT / "benchmarks" / "triton_compile.py", *arguments).splitlines()[2:]
    assert all(line.endswith("True") for line in lines), "not on Hopper's matrix instructions"
    return len(lines)


def test_heaviest_kernel_compiles_for_hopper_without_spills():
    given = ("--kernels", "gradient", "--dims", 256, "--roles", "both")
    assert compile_for_hopper(*given) == 2


@pytest.mark.slow
def test_all_tiles_compile_for_hopper_without_spills():
    assert compile_for_hopper("--forms", "negatives", "--roles", "both") == 9


@pytest.mark.parametrize("tiles", [HOPPER_TILES, SMALL_TILES], ids=["hopper", "small"])
def test_every_supported_length_has_tiles(tiles):
    for kernel, dim in product(("statistics", "positives", "gradient"), range(16, 257, 16)):
        assert triton_backend.supports(torch.float16, dim)
        tile = tiles[kernel, max(64, padded(dim))]
        # The tiles with masks of the gradient are half as wide; a product needs 16.
        assert tile.columns % 32 == 0


@pytest.mark.parametrize("dim", [0, 8, 24, 257, 272, 512])
def test_other_lengths_are_refused(dim):
    assert not triton_backend.supports(torch.float16, dim)


def test_formats(monkeypatch):
    assert triton_backend.supports(torch.bfloat16, 64)
    assert not triton_backend.supports(torch.float64, 64)
    monkeypatch.setattr(triton_backend, "_tf32_allowed", lambda: False)
    assert not triton_backend.supports(torch.float32, 64)
    with torch.autocast("cuda", dtype=torch.float16, enabled=torch.cuda.is_available()):
        assert triton_backend.supports(torch.float32, 64) == torch.cuda.is_available()
    monkeypatch.setattr(triton_backend, "_tf32_allowed", lambda: True)
    assert triton_backend.supports(torch.float32, 64)


def test_tf32_follows_the_setting_of_torch():
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        assert not triton_backend._tf32_allowed()
        torch.set_float32_matmul_precision("high")
        assert triton_backend._tf32_allowed()
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("blocks", "column_tiles", "expected"),
    [(512, 1024, 1), (132, 1024, 1), (8, 5938, 33), (8, 4, 4), (1, 1, 1), (1, 10_000, 132)],
)
def test_columns_are_split_only_to_fill_the_gpu(blocks, column_tiles, expected):
    assert split_count(blocks, column_tiles, processors=132) == expected


def test_splits_bound_the_number_of_parts():
    for blocks in range(1, 300):
        assert split_count(blocks, 10_000, 132) * blocks <= max(2 * 132, blocks)


@pytest.mark.parametrize("size", [1e-20, 3e-6, 1.0, 1e20])
def test_bf16_becomes_fp16_without_loss(size):
    generator = torch.Generator().manual_seed(0)
    vectors = (torch.randn(50, 16, generator=generator) * size).bfloat16()
    stored, unit = triton_backend._kernel_format(vectors, torch.tensor(50))
    assert stored.dtype == torch.float16
    assert torch.equal(stored.double() * unit.double(), vectors.double())
    assert 2.0**13 <= stored.abs().max() < 2.0**14


def test_ignored_rows_do_not_decide_on_the_unit():
    vectors = torch.ones(4, 16)
    vectors[2:] = torch.tensor([[float("nan")], [1e30]])
    stored, unit = triton_backend._kernel_format(vectors, torch.tensor(2))
    assert torch.equal(stored[:2] * unit, vectors[:2])


def test_zero_vectors_have_a_format():
    stored, unit = triton_backend._kernel_format(torch.zeros(3, 16), torch.tensor(3))
    assert torch.isfinite(unit)
    assert not stored.any()


@pytest.mark.parametrize("module", [triton_launch, triton_backend])
def test_modules_load_without_triton(module, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    runpy.run_path(module.__file__)
    assert not triton_backend.triton_available()
