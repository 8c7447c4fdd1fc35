"""The two losses of an anchor, from a row of its similarities and masks of their roles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from pixelcontrast.losses.problem import Denominator


def row_terms(
    logits: Tensor, positive: Tensor, negative: Tensor, denominator: Denominator
) -> Tensor:
    """(N,) mean over each row's positives of its loss, 0 without a positive.

    Args:
        logits: (N, K) similarities divided by the temperature.
        positive: (N, K) bool.
        negative: (N, K) bool.
        denominator: "negatives": each positive against the negatives; "all": against both.
    """
    if denominator == "negatives":
        return split_row_terms(logits, positive, logits, negative, denominator)
    each = masked_logsumexp(logits, positive | negative)[:, None] - logits
    return mean_over(positive, each)


def split_row_terms(
    up: Tensor, positive: Tensor, down: Tensor, negative: Tensor, denominator: Denominator
) -> Tensor:
    """`row_terms` with the positives among some samples and the negatives among others.

    Args:
        up: (N, P) similarities divided by the temperature.
        positive: (N, P) bool.
        down: (N, M) the same of samples that may be negatives.
        negative: (N, M) bool.
        denominator: as above.
    """
    others = masked_logsumexp(down, negative)
    if denominator == "negatives":
        # Not softplus: PyTorch's is the identity above 20, 2e-9 off.
        each = -F.logsigmoid(up - others[:, None])
    else:
        each = torch.logaddexp(masked_logsumexp(up, positive), others)[:, None] - up
    return mean_over(positive, each)


def mean_over(mask: Tensor, values: Tensor) -> Tensor:
    """(N,) mean of each row's values where `mask` is true, 0 where it never is."""
    return values.masked_fill(~mask, 0).sum(1) / mask.sum(1).clamp_min(1)


def masked_logsumexp(logits: Tensor, mask: Tensor) -> Tensor:
    """(N,) log-sum-exp of each row over `mask`; minus infinity, without gradient, over nothing."""
    some = mask.any(1)
    # The gradient of a row that is -inf throughout is not a number: such rows are computed over
    # all entries and replaced.
    total = logits.masked_fill(~mask & some[:, None], float("-inf")).logsumexp(1)
    return total.masked_fill(~some, float("-inf"))
