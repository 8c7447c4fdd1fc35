"""Notices that nothing is ever chosen to be learnt from, without stalling a GPU."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from pixelcontrast.core.distributed import rank
from pixelcontrast.methods.arrivals import Arrivals

if TYPE_CHECKING:
    from torch import Tensor


class KeptWatch:
    """Warns once when a choice of pixels was empty for many steps in a row.

    An untrained network is unsure everywhere, so the first steps are no reason to worry.

    Args:
        message: what is wrong and which setting decides, for "in 100 steps ...".
        patience: steps without any pixel before the warning.
    """

    def __init__(self, message: str, patience: int = 100) -> None:
        self.message = message
        self.patience = patience
        self._pending: Arrivals[None] = Arrivals()
        self._without = 0

    def note(self, keep: Tensor) -> None:
        """Count the choices of a step; `keep` is a bool tensor of any shape."""
        self._pending.send(None, keep.sum().view(1))
        for _, (count,) in self._pending.arrived():
            self._without = 0 if count else self._without + 1
            if self._without == self.patience and rank() == 0:
                warnings.warn(f"in {self.patience} steps {self.message}", stacklevel=2)
