"""Watches the loss terms for values that are not finite, without stalling a GPU."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from pixelcontrast.core.errors import TrainingError
from pixelcontrast.methods.arrivals import Arrivals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class _Step(NamedTuple):
    step: int
    names: tuple[str, ...]
    ids: tuple[str, ...]


class FiniteWatch:
    """Reports the first non-finite loss term with its step and image names.

    On a GPU the values are copied asynchronously and looked at as soon as they have arrived, at
    the latest when a checkpoint is about to be written (`drain`), so a checkpoint never holds the
    weights of a step whose loss was not finite.
    """

    def __init__(self) -> None:
        self._pending: Arrivals[_Step] = Arrivals()

    def watch(self, step: int, terms: Mapping[str, Tensor], ids: tuple[str, ...]) -> None:
        """Note the terms of a step and check all that have arrived.

        Raises:
            TrainingError: a term of this or an earlier step is not finite.
        """
        values = torch.stack([term.detach().float() for term in terms.values()])
        self._pending.send(_Step(step, tuple(terms), ids), values)
        self._check(wait=False)

    def drain(self) -> None:
        """Wait for all noted steps and check them.

        Raises:
            TrainingError: a term is not finite.
        """
        self._check(wait=True)

    def _check(self, *, wait: bool) -> None:
        for noted, values in self._pending.arrived(wait=wait):
            named = zip(noted.names, values, strict=True)
            broken = [f"{name} = {value}" for name, value in named if not math.isfinite(value)]
            if broken:
                raise TrainingError(
                    f"the loss is not finite at step {noted.step}: {', '.join(broken)}",
                    where="images " + ", ".join(noted.ids),
                    fix="lower optim.lr, set optim.clip_norm=1, use train.precision=fp32 or look "
                    "at the images with 'pixelcontrast data check'; the last good checkpoint is "
                    "kept",
                )
