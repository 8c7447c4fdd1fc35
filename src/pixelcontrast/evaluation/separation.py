"""How well features separate classes: alignment A, uniformity U, neighbourhood uniformity U_l.

Li et al., "Targeted Supervised Contrastive Learning for Long-Tailed Recognition", CVPR 2022. All
three average over classes, so that a rare class counts as much as a frequent one, and use plain
(not squared) Euclidean distances of unit vectors. With F_c the features of class c, k_c the
direction of their mean and C the classes that have features:

    A   = 1/C       sum_c 1/|F_c|^2 sum_{v, w in F_c} |v - w|                    lower is better
    U   = 1/C(C-1)  sum_c sum_{c' != c} |k_c - k_c'|                             higher is better
    U_l = 1/(C l)   sum_c sum over the l classes nearest to c of |k_c - k_c'|    higher is better
"""

from __future__ import annotations

from math import nan, sqrt

import torch
from torch import Tensor

BLOCK_ROWS = 1024
"""Vectors whose distances to others are held at a time: at most 8 MiB of float64."""
NO_DIRECTION = 1e-9
"""A mean of unit vectors shorter than this is rounding, not a direction."""


def distance_row_sums(vectors: Tensor, *, block_rows: int = BLOCK_ROWS) -> Tensor:
    """Sum of the distances from each vector to all others, block by block.

    Args:
        vectors: (N, F) float64, unit length.
        block_rows: rows of a block; the result does not depend on it beyond rounding.

    Returns:
        (N,) float64.
    """
    blocks = torch.split(vectors, block_rows)
    sums = [vectors.new_zeros(len(block)) for block in blocks]
    for i, left in enumerate(blocks):
        for j in range(i, len(blocks)):
            # |v - w|^2 = 2 - 2 v.w; in float64 the digits suffice for close vectors, too.
            distance = (left @ blocks[j].T).mul_(-2).add_(2).clamp_(min=0).sqrt_()
            if i == j:
                distance.fill_diagonal_(0)
                sums[i] += distance.sum(1)
            else:
                sums[i] += distance.sum(1)
                sums[j] += distance.sum(0)
    return torch.cat(sums) if sums else vectors.new_zeros(0)


def mean_distance(vectors: Tensor) -> float:
    """A_c: the mean distance over all ordered pairs, a vector with itself included.

    Args:
        vectors: (N, F), N >= 1, any length but zero.
    """
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)
    return float(distance_row_sums(unit).sum()) / len(unit) ** 2


def sampled_mean_distance(vectors: Tensor, count: int) -> tuple[float, float]:
    """A_c and its standard error from a uniform sample of a class.

    The mean over different pairs of the sample, times (count - 1) / count, so that its expectation
    is the definition, in which each vector also meets itself. Exact when the sample is the class.

    Args:
        vectors: (M, F) the sample, any length but zero.
        count: |F_c|, at least M.
    """
    size = len(vectors)
    if count < 2:
        return 0.0, 0.0
    if size < 2:
        return nan, nan
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)
    rows = distance_row_sums(unit) / (size - 1)
    share = (count - 1) / count
    # Each vector takes part in two rows' worth of pairs: the jackknife gives twice the error of
    # the mean of independent row means.
    error = 2 * sqrt(float(rows.var()) / size) * share if size < count else 0.0
    return float(rows.mean()) * share, error


def centre_distances(centres: Tensor) -> Tensor:
    """(C, C) distances between unit vectors (C, F) float64."""
    return (centres @ centres.T).mul_(-2).add_(2).clamp_(min=0).sqrt_().fill_diagonal_(0)


def neighbourhood_uniformity(centres: Tensor, neighbours: int) -> float:
    """U_l: the mean distance from each class centre to its l nearest others; NaN for one class.

    Args:
        centres: (C, F) float64, unit length.
        neighbours: l, from 1 to C - 1.

    Raises:
        ValueError: l is outside that range, for two classes or more.
    """
    count = len(centres)
    if count < 2:
        return nan
    if not 1 <= neighbours < count:
        raise ValueError(
            f"neighbours must lie between 1 and {count - 1} for {count} classes, got {neighbours}"
        )
    others = centre_distances(centres).fill_diagonal_(float("inf"))
    return float(others.topk(neighbours, largest=False).values.mean())


def uniformity(centres: Tensor) -> float:
    """U: the mean distance between the centres of two classes; NaN for one class."""
    return neighbourhood_uniformity(centres, len(centres) - 1)


def alignment_bounds(resultant: float) -> tuple[float, float]:
    """Exact bounds of A_c from R_c alone: 1 - R^2 <= A_c <= sqrt(2 (1 - R^2)).

    From below because d >= d^2 / 2 for distances up to 2, from above by Jensen's inequality.

    Args:
        resultant: R_c = |mean of the unit vectors|.
    """
    spread = max(0.0, 1 - resultant**2)
    return spread, sqrt(2 * spread)
