"""Counts the operations of a piece of code, and those that make the host wait for the device."""

from __future__ import annotations

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# What cannot return, or knows the size of its result, before the device has finished.
FORCING = {
    "_local_scalar_dense",
    "nonzero",
    "nonzero_numpy",
    "unique_dim",
    "_unique",
    "_unique2",
    "unique_consecutive",
    "unique_dim_consecutive",
    "bincount",
    "masked_select",
    "equal",
    "is_nonzero",
    "repeat_interleave",
    "histc",
}

# What only describes the same numbers in another way and starts nothing on the device.
VIEWS = {
    "_unsafe_view",
    "alias",
    "detach",
    "expand",
    "lift_fresh",
    "permute",
    "select",
    "slice",
    "split",
    "split_with_sizes",
    "squeeze",
    "t",
    "transpose",
    "unbind",
    "unsqueeze",
    "view",
}


class OpCount(TorchDispatchMode):
    """While active, counts aten operations by name.

    On the CPU, `tolist` and `numpy` read values without an operation and are not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ops: Counter[str] = Counter()
        self.forcing: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.ops[name] += 1
        masks = name in {"index", "index_put", "index_put_"} and any(
            t is not None and t.dtype in (torch.bool, torch.uint8) for t in args[1]
        )
        if name in FORCING or masks:
            self.forcing[name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        """All operations, views included."""
        return sum(self.ops.values())

    @property
    def kernels(self) -> int:
        """Operations that compute something."""
        return sum(count for name, count in self.ops.items() if name not in VIEWS)
