"""Half-precision matrix units behind float32 products, where the inputs lose nothing by it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


@contextmanager
def fast_products(*vectors: Tensor) -> Iterator[None]:
    """Float32 matrix products may round their operands to the type the vectors came in.

    bfloat16 vectors copied to float32 are unchanged by rounding to bfloat16 (CPU), and float16 or
    bfloat16 vectors by rounding to TF32 (CUDA): similarities and sums stay float32, only the pair
    weights of the gradient are rounded. The setting is PyTorch's and process-wide; it is put back
    on leaving. Float32 vectors leave it alone.
    """
    device, dtypes = vectors[0].device.type, {vector.dtype for vector in vectors}
    if device == "cpu" and dtypes == {torch.bfloat16}:
        wanted = _setting(torch.backends.mkldnn, "bf16")
    elif device == "cuda" and dtypes <= {torch.bfloat16, torch.float16}:
        wanted = _setting(torch.backends.cuda, "tf32")
    else:
        wanted = None
    if wanted is None:
        yield
        return
    place, value = wanted
    before = place.fp32_precision
    place.fp32_precision = value
    try:
        yield
    finally:
        place.fp32_precision = before


def _setting(backend: Any, value: str) -> tuple[Any, str] | None:
    """Where to put `value`; None for a PyTorch without this setting."""
    place = getattr(backend, "matmul", None)
    return (place, value) if hasattr(place, "fp32_precision") else None
