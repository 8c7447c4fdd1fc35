from __future__ import annotations

from itertools import permutations

import pytest
import torch

from pixelcontrast.core.assignment import assign_pairs


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2)])
@pytest.mark.parametrize("maximise", [False, True])
def test_no_other_pairs_are_better(shape, maximise):
    table = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows, columns = assign_pairs(table, maximise=maximise)
    wide = table if shape[0] <= shape[1] else table.T
    sums = [
        sum(wide[i, j] for i, j in enumerate(choice))
        for choice in permutations(range(wide.shape[1]), wide.shape[0])
    ]
    assert table[rows, columns].sum() == pytest.approx(max(sums) if maximise else min(sums))
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == min(shape)


def test_nothing_to_pair():
    rows, columns = assign_pairs(torch.zeros(0, 3))
    assert rows.numel() == columns.numel() == 0
