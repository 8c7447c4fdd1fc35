"""Which engine computes a contrast problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixelcontrast.core.errors import ConfigError, unknown_name
from pixelcontrast.losses.fused import fits, fused_terms
from pixelcontrast.losses.matrix import matrix_terms
from pixelcontrast.losses.reference import naive_terms
from pixelcontrast.losses.streaming import stream_terms

if TYPE_CHECKING:
    from pixelcontrast.losses.problem import AnchorTerms, Backend, Contrast


SMALL = {"cpu": 2**18, "cuda": 2**21}
"""Pairs up to which whole rows are faster, because tiles need a plan and kernels a sort."""


def anchor_terms(contrast: Contrast, backend: Backend) -> AnchorTerms:
    """Loss and number of positives of each anchor, by the named back end.

    Raises:
        ConfigError: unknown name, or a problem the fused kernels do not cover.
    """
    if backend == "auto":
        backend = _fastest(contrast)
    if backend == "stream":
        terms: AnchorTerms = stream_terms(contrast)
    elif backend == "matrix":
        terms = matrix_terms(contrast)
    elif backend == "naive":
        terms = naive_terms(contrast)
    elif backend == "triton":
        if not fits(contrast):
            raise ConfigError(
                "the Triton back end needs an NVIDIA GPU, vectors and a form it covers, not "
                f"{contrast.anchors.dtype} of width {contrast.anchors.shape[1]} on "
                f"{contrast.anchors.device}",
                fix="use backend='auto'",
            )
        terms = fused_terms(contrast)
    else:
        raise unknown_name("backend", backend, ("auto", "matrix", "naive", "stream", "triton"))
    return terms


def _fastest(contrast: Contrast) -> Backend:
    """The engine for a problem of this size on this device; none makes the host wait for a GPU."""
    anchors, keys = contrast.anchors, contrast.keys
    others = (len(anchors) if contrast.mutual else 0) + (0 if keys is None else len(keys.labels))
    if len(anchors) * others <= SMALL.get(anchors.device.type, 0):
        return "matrix"
    if anchors.device.type == "cpu":
        return "stream"
    return "triton" if fits(contrast) else "matrix"
