"""What all memories share: the form in which keys leave them, and writing rows in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pixelcontrast.core.distributed import gather_rows

if TYPE_CHECKING:
    from torch import Tensor


class Keys(NamedTuple):
    """Remembered vectors, sorted by class. Views of the memory: use them before the next write."""

    vectors: Tensor
    """(K, D) in the storage type; zero in empty slots."""
    labels: Tensor
    """(K,) int64 class; -1 in empty slots, so that losses leave them out."""
    valid: Tensor
    """(K,) bool: the slot has been written."""


def gather_labelled(
    keys_ND: Tensor, labels_N: Tensor, valid_N: Tensor | None, num_classes: int, same_rows: bool
) -> tuple[Tensor, Tensor]:
    """Keys and labels of all processes in rank order; labels of rows to leave out are -1 or C."""
    labels = labels_N.long().clamp(-1, num_classes)
    if valid_N is not None:
        labels = labels.masked_fill(~valid_N, -1)
    return gather_rows(keys_ND, same_rows=same_rows), gather_rows(labels, same_rows=same_rows)


def write_rows(store: Tensor, slots: Tensor, rows: Tensor) -> None:
    """Write `rows[i]` to `store[slots[i]]`; slots must differ, except for the last.

    How many rows are kept is known to the device alone, so all are written: those that are not
    to be kept to the last row of the store, which is there for that and is emptied again.

    Args:
        store: (R + 1, ...) of any type.
        slots: (N,) int64 in [0, R].
        rows: (N, ...) cast to the type of the store.
    """
    store.index_copy_(0, slots, rows.to(store.dtype))
    store[-1].zero_()
