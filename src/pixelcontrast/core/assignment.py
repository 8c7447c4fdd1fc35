"""The best one-to-one pairs of rows and columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def assign_pairs(table: Tensor, *, maximise: bool = False) -> tuple[Tensor, Tensor]:
    """Pairs with the least sum of entries, no row and no column twice (the Hungarian problem).

    Args:
        table: (R, C) finite entries, on any device; solved on the host.
        maximise: the largest sum instead.

    Returns:
        Rows and columns of the min(R, C) pairs, on the host, rows in rising order.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, rarely needed

    rows, columns = linear_sum_assignment(table.cpu().numpy(), maximize=maximise)
    return torch.from_numpy(rows), torch.from_numpy(columns)
