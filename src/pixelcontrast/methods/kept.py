"""Notices that pseudo-labels are never trusted, without stalling a GPU."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from pixelcontrast.core.distributed import rank
from pixelcontrast.methods.arrivals import Arrivals

if TYPE_CHECKING:
    from torch import Tensor


class KeptWatch:
    """Warns once when no unlabelled pixel was trained on for many steps in a row.

    An untrained network is unsure everywhere, so the first steps are no reason to worry.

    Args:
        setting: what decides which pixels are trusted, by its name and value.
        patience: steps without any pixel before the warning.
    """

    def __init__(self, setting: str, patience: int = 100) -> None:
        self.setting = setting
        self.patience = patience
        self._pending: Arrivals[None] = Arrivals()
        self._without = 0

    def note(self, keep: Tensor) -> None:
        """Count the pixels of a step; `keep` is a bool map of any shape."""
        self._pending.send(None, keep.sum().view(1))
        for _, (count,) in self._pending.arrived():
            self._without = 0 if count else self._without + 1
            if self._without == self.patience and rank() == 0:
                warnings.warn(
                    f"in {self.patience} steps no pixel of an unlabelled image was trusted, so "
                    f"these images teach nothing: {self.setting} is too strict",
                    stacklevel=2,
                )
