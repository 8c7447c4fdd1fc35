"""A ring buffer of keys for every class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.memory.storage import Keys, gather_labelled, write_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator


class ClassQueue(nn.Module):
    """First in, first out, separately for every class; empty slots never leave it.

    The pixel queue of Wang et al. (ICCV 2021), their region queue, and the negative queue of
    Wang et al., "Using Unreliable Pseudo-Labels" (CVPR 2022). Class 0 is a class like any other.

    Owned by the training method, never by the network, so exported models do not contain it. On
    several processes the rows of all ranks are written in rank order and every process holds the
    same memory; hand the wrapped module to `core.distributed.keep_out_of_ddp`, lest the buffers
    be sent around before each forward pass. All state is in the checkpoint.

    Args:
        num_classes: C.
        capacity: slots of each class T, one number or one per class. Wang et al. use ten times
            the number of training images, at most 10,000.
        dim: D.
        dtype: storage type; half precision suffices for unit vectors and halves the size.

    Raises:
        ConfigError: a capacity below one, or not one per class.
    """

    same_on_all_ranks = True
    rows: Tensor
    written: Tensor
    capacity: Tensor
    first: Tensor
    slot_labels: Tensor
    slot_place: Tensor
    classes: Tensor

    def __init__(
        self,
        num_classes: int,
        capacity: int | Sequence[int],
        dim: int,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        sizes = [capacity] * num_classes if isinstance(capacity, int) else list(capacity)
        if len(sizes) != num_classes or min(sizes) < 1:
            raise ConfigError(
                f"queue capacity {capacity} does not fit {num_classes} classes",
                fix="give one number of at least 1, or one for each class",
            )
        self.num_classes = num_classes
        self.smallest = min(sizes)
        slots = torch.tensor(sizes)
        # One row more than slots takes what is not to be kept; see write_rows.
        self.register_buffer("rows", torch.zeros(sum(sizes) + 1, dim, dtype=dtype))
        self.register_buffer("written", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("capacity", slots, persistent=False)
        self.register_buffer("first", slots.cumsum(0) - slots, persistent=False)
        owner = torch.arange(num_classes).repeat_interleave(slots, output_size=sum(sizes))
        place = torch.arange(sum(sizes)) - self.first[owner]
        self.register_buffer("slot_labels", owner, persistent=False)
        self.register_buffer("slot_place", place, persistent=False)
        self.register_buffer("classes", torch.arange(num_classes + 1), persistent=False)

    @torch.no_grad()
    def enqueue(
        self,
        keys_ND: Tensor,
        labels_N: Tensor,
        valid_N: Tensor | None = None,
        *,
        same_rows: bool = False,
    ) -> None:
        """Append keys in order; of more keys of a class than slots, the last ones stay.

        Not between the forward pass of a loss on `keys()` and its backward pass.

        Args:
            keys_ND: (N, D); no gradient is kept.
            labels_N: (N,) class ids; rows outside [0, C) are left out.
            valid_N: (N,) bool, rows that count; None: all.
            same_rows: N is equal on all processes (see `core.distributed.gather_rows`).
        """
        self.write(*gather_labelled(keys_ND, labels_N, valid_N, self.num_classes, same_rows))

    @torch.no_grad()
    def write(self, keys_ND: Tensor, labels_N: Tensor) -> None:
        """`enqueue` for keys that every process already holds, those of all images.

        Args:
            keys_ND: (N, D), the same on all processes.
            labels_N: (N,) class ids; rows outside [0, C) are left out.
        """
        ordered, order = labels_N.sort(stable=True)
        starts = torch.searchsorted(ordered, self.classes)
        place = torch.arange(labels_N.numel(), device=labels_N.device)
        owner = ordered.clamp(0, self.num_classes - 1)
        leave = ordered != owner
        if labels_N.numel() > self.smallest:
            leave |= place < (starts[1:] - self.capacity)[owner]
        ahead = self.written - starts[:-1]
        turn = place + ahead[owner]
        slots = self.first[owner] + turn % self.capacity[owner]
        slots.masked_fill_(leave, self.rows.shape[0] - 1)
        # The slots are brought into the order of the keys, not the much wider keys into theirs.
        write_rows(self.rows, slots.scatter(0, order, slots), keys_ND)
        torch.add(ahead, starts[1:], out=self.written)

    def draw(self, amount: int, generator: Generator) -> Tensor:
        """(C, amount) rows of random keys of each class, drawn with replacement.

        They point into `keys().vectors`; those of a class without keys mean nothing.

        Args:
            amount: keys of each class.
            generator: source of randomness, on the device of the queue.
        """
        size = self.count[:, None]
        luck = torch.rand((len(size), amount), generator=generator, device=size.device)
        # Rounding may reach the size itself.
        number = (luck * size).long().minimum(size - 1).clamp_min(0)
        return self.first[:, None] + number

    @property
    def count(self) -> Tensor:
        """(C,) filled slots of each class."""
        return self.written.minimum(self.capacity)

    @property
    def pointer(self) -> Tensor:
        """(C,) slot within its ring that each class writes next."""
        return self.written % self.capacity

    def keys(self) -> Keys:
        """All slots, class by class, filled or not: (sum of capacities, D)."""
        empty = self.slot_place >= self.written[self.slot_labels]
        return Keys(self.rows[:-1], self.slot_labels.masked_fill(empty, -1), ~empty)
