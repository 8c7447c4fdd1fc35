"""Watches the loss terms for values that are not finite, without stalling a GPU."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from pixelcontrast.core.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Pending(NamedTuple):
    step: int
    names: tuple[str, ...]
    ids: tuple[str, ...]
    values: Tensor
    ready: torch.cuda.Event | None

    def arrived(self) -> bool:
        """Whether the values can be read without waiting."""
        return self.ready is None or bool(self.ready.query())  # type: ignore[no-untyped-call]


class FiniteWatch:
    """Reports the first non-finite loss term with its step and image names.

    On a GPU the values are copied asynchronously and looked at as soon as they have arrived, at
    the latest when a checkpoint is about to be written (`drain`), so a checkpoint never holds the
    weights of a step whose loss was not finite.
    """

    def __init__(self) -> None:
        self._pending: deque[_Pending] = deque()

    def watch(self, step: int, terms: Mapping[str, Tensor], ids: tuple[str, ...]) -> None:
        """Note the terms of a step and check all that have arrived.

        Raises:
            TrainingError: a term of this or an earlier step is not finite.
        """
        values = torch.stack([term.detach().float() for term in terms.values()])
        ready = None
        if values.is_cuda:
            values = values.to("cpu", non_blocking=True)
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record()
        self._pending.append(_Pending(step, tuple(terms), ids, values, ready))
        while self._pending and self._pending[0].arrived():
            self._check(self._pending.popleft())

    def drain(self) -> None:
        """Wait for all noted steps and check them.

        Raises:
            TrainingError: a term is not finite.
        """
        while self._pending:
            entry = self._pending.popleft()
            if entry.ready is not None:
                entry.ready.synchronize()
            self._check(entry)

    @staticmethod
    def _check(entry: _Pending) -> None:
        values = entry.values.tolist()
        broken = [
            f"{n} = {v}" for n, v in zip(entry.names, values, strict=True) if not math.isfinite(v)
        ]
        if broken:
            raise TrainingError(
                f"the loss is not finite at step {entry.step}: {', '.join(broken)}",
                where="images " + ", ".join(entry.ids),
                fix="lower optim.lr, set optim.clip_norm=1, use train.precision=32 or look at the "
                "images with 'pixelcontrast data check'; the last good checkpoint is kept",
            )
