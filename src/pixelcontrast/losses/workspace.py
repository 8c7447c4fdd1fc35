"""Buffers of one tile and the masks of tiles that hold more than one kind of pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from pixelcontrast.losses.tiling import Rows, Tile


class Workspace:
    """Tile-sized scratch memory, allocated once a call.

    Args:
        size: most elements of a tile.
        like: gives type and device.
    """

    def __init__(self, size: int, like: Tensor) -> None:
        self._size = size
        self._like = like
        self._buffers: dict[str, Tensor] = {}

    def __call__(self, name: str, rows: int, columns: int) -> Tensor:
        """An uninitialised (rows, columns) view of the buffer `name`."""
        if name not in self._buffers:
            self._buffers[name] = self._like.new_empty(self._size)
        return self._buffers[name][: rows * columns].view(rows, columns)


class Masks:
    """Role masks of one pair of tiles, 1 where the pair takes the role and 0 elsewhere.

    Args:
        rows: sorted anchors.
        keys: sorted keys; the same object where the anchors are the keys.
        own_image: negatives come from the anchor's image alone.
        negatives: the denominator holds the negatives alone.
        work: scratch memory.
    """

    def __init__(
        self, rows: Rows, keys: Rows, *, own_image: bool, negatives: bool, work: Workspace
    ) -> None:
        self._rows, self._keys = rows, keys
        self._own_image, self._negatives = own_image, negatives
        self._work = work

    def itself(self, row: Tile, key: Tile) -> bool:
        """Whether the tile may hold pairs of an anchor with itself."""
        if self._rows is self._keys:
            return row.start == key.start
        return self._rows.own is not None and (row.own_low < key.stop and key.start <= row.own_high)

    def positive(self, row: Tile, key: Tile) -> Tensor:
        """Pairs of one class, the anchor itself excepted."""
        return self._drop_self(self._same_class(row, key, "positive"), row, key)

    def denominator(self, row: Tile, key: Tile) -> Tensor:
        """Negatives, and for the form over all keys the positives, too."""
        mask = self._same_class(row, key, "denominator")
        if self._negatives:
            mask.neg_().add_(1.0)
            if self._own_image:
                mask.mul_(self._same_image(row, key))
        elif self._own_image:
            torch.maximum(mask, self._same_image(row, key), out=mask)
        else:
            mask.fill_(1.0)
        return self._drop_self(mask, row, key)

    def _same_class(self, row: Tile, key: Tile, name: str) -> Tensor:
        return torch.eq(
            self._rows.labels[row.start : row.stop, None],
            self._keys.labels[None, key.start : key.stop],
            out=self._buffer(name, row, key),
        )

    def _same_image(self, row: Tile, key: Tile) -> Tensor:
        left, right = self._rows.images, self._keys.images
        if left is None or right is None:
            raise RuntimeError("negatives of the own image without image numbers")
        return torch.eq(
            left[row.start : row.stop, None],
            right[None, key.start : key.stop],
            out=self._buffer("helper", row, key),
        )

    def _drop_self(self, mask: Tensor, row: Tile, key: Tile) -> Tensor:
        if not self.itself(row, key):
            return mask
        own = self._rows.own
        if self._rows is self._keys or own is None:
            mask.diagonal().zero_()
            return mask
        at = torch.arange(key.start, key.stop, device=own.device, dtype=own.dtype)
        itself = torch.eq(
            own[row.start : row.stop, None], at[None], out=self._buffer("helper", row, key)
        )
        return mask.sub_(itself).clamp_min_(0.0)

    def _buffer(self, name: str, row: Tile, key: Tile) -> Tensor:
        return self._work(name, row.stop - row.start, key.stop - key.start)
