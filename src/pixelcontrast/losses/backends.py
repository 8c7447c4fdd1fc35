"""Which engine computes a contrast problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelcontrast.core.errors import unknown_name
from pixelcontrast.losses.reference import naive_terms
from pixelcontrast.losses.streaming import stream_terms

if TYPE_CHECKING:
    from pixelcontrast.losses.problem import AnchorTerms, Backend, Contrast


def anchor_terms(contrast: Contrast, backend: Backend) -> AnchorTerms:
    """Loss and number of positives of each anchor, by the named back end."""
    if backend == "naive":
        return naive_terms(contrast)
    if backend in ("auto", "stream"):
        return stream_terms(contrast)
    raise unknown_name("backend", backend, ("auto", "naive", "stream", "triton"))
