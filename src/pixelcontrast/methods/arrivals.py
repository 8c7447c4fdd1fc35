"""Numbers on their way from the device to the host, which does not wait for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class _Sent(NamedTuple, Generic[T]):
    note: T
    values: Tensor
    ready: torch.cuda.Event | None

    def is_here(self) -> bool:
        return self.ready is None or bool(self.ready.query())  # type: ignore[no-untyped-call]


class Arrivals(Generic[T]):
    """Small tensors copied to the host asynchronously, each with a note that comes back with it.

    On the CPU everything arrives at once.
    """

    def __init__(self) -> None:
        self._sent: deque[_Sent[T]] = deque()

    def send(self, note: T, values: Tensor) -> None:
        """Start the copy of `values` (N,)."""
        ready = None
        values = values.detach()
        if values.is_cuda:
            values = values.to("cpu", non_blocking=True)
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record()
        self._sent.append(_Sent(note, values, ready))

    def arrived(self, *, wait: bool = False) -> Iterator[tuple[T, list[float]]]:
        """Notes and values in the order sent, as far as they are here.

        Args:
            wait: give all of them, waiting for the device.
        """
        while self._sent and (wait or self._sent[0].is_here()):
            sent = self._sent.popleft()
            if wait and sent.ready is not None:
                sent.ready.synchronize()
            yield sent.note, sent.values.tolist()
