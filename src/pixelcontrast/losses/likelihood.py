"""How similar two uncertain embeddings are: the mutual likelihood score of Gaussians.

Shi and Jain, "Probabilistic Face Embeddings" (ICCV 2019); Xie et al., "Boosting Semi-Supervised
Semantic Segmentation with Probabilistic Representations" (AAAI 2023, 2210.14670).

Letters: C classes, D embedding.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcontrast.losses.problem import statistics_dtype

ScoreReduction = Literal["sum", "mean"]

_PAIRWISE_BYTES = 2**24


def unit(mean: Tensor) -> Tensor:
    """Vectors brought to unit length over the last axis, in float32 or wider; zero stays zero."""
    return F.normalize(mean.to(statistics_dtype(mean.dtype)), dim=-1, eps=1e-12)


def mutual_likelihood(
    mean0: Tensor,
    variance0: Tensor,
    mean1: Tensor,
    variance1: Tensor,
    *,
    reduction: ScoreReduction = "sum",
    constant: bool = False,
) -> Tensor:
    """Logarithm of the probability that draws from two Gaussians coincide.

    `-1/2 sum_l [(a - b)_l^2 / v_l + log v_l]` with `v = variance0 + variance1` and the means a, b
    brought to unit length first, as in PRCL's code; the paper's formula has the sum and the
    constant, its code the mean without it. A constant cancels in every softmax.

    This form holds every difference in memory; `distribution_info_nce` does not.

    Args:
        mean0: (..., D), of any length.
        variance0: (..., D), not negative, at most one of the two zero.
        mean1: (..., D), broadcast against `mean0`.
        variance1: (..., D).
        reduction: over D.
        constant: subtract `D / 2 log(2 pi)`.

    Returns:
        (...) scores in float32 or wider, larger for close means and small variances.
    """
    with torch.autocast(mean0.device.type, enabled=False):
        variance = variance0.to(statistics_dtype(variance0.dtype)) + variance1
        terms = (unit(mean0) - unit(mean1)).square() / variance + variance.log()
        if constant:
            terms = terms + math.log(2 * math.pi)
        return -0.5 * (terms.mean(-1) if reduction == "mean" else terms.sum(-1))


@torch.no_grad()
def pairwise_likelihood(
    mean_CD: Tensor, variance_CD: Tensor, *, reduction: ScoreReduction = "sum"
) -> Tensor:
    """(C, C) mutual likelihood scores among classes, in float64 and without gradient.

    Args:
        mean_CD: (C, D) prototypes.
        variance_CD: (C, D), positive; infinite for a class without a prototype, which then scores
            minus infinity.
        reduction: over D.
    """
    mean, variance = mean_CD.double(), variance_CD.double()
    rows = max(1, _PAIRWISE_BYTES // max(1, 8 * mean.numel()))
    blocks = []
    for start in range(0, len(mean), rows):
        m, v = (part[start : start + rows, None] for part in (mean, variance))
        blocks.append(mutual_likelihood(m, v, mean, variance, reduction=reduction))
    return torch.cat(blocks)
