"""Negatives that no pixel gave: points drawn around the distribution of a class.

Letters: C classes, D embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

VirtualNoise = Literal["variance", "std", "exp-half-variance"]


def virtual_points(
    mean_CD: Tensor,
    variance_CD: Tensor,
    noise: Tensor,
    *,
    scale: VirtualNoise = "variance",
    radius: float = 1.0,
) -> Tensor:
    """Virtual negatives: points around the distribution of each class, `mean + radius * s * noise`.

    Xie et al. (IJCV 2024, 2402.18117).

    Args:
        mean_CD: (C, D).
        variance_CD: (C, D).
        noise: (..., C, D) standard normal numbers.
        scale: s. "variance" is the published formula, "std" (its square root) gives true samples
            of the distribution, "exp-half-variance" is the authors' code, which takes the
            variance for its logarithm: noise of about unit size.
        radius: beta of the paper; 1 in the authors' code.

    Returns:
        The shape of `noise`.
    """
    if scale == "variance":
        spread = variance_CD
    elif scale == "std":
        spread = variance_CD.sqrt()
    else:
        spread = (variance_CD / 2).exp()
    return mean_CD + radius * spread * noise
