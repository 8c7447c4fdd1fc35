"""Buffers of one tile and the masks of tiles that hold more than one kind of pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pixelcontrast.losses.tiling import Share, roles

if TYPE_CHECKING:
    from torch import Tensor

    from pixelcontrast.losses.tiling import Roles, Rows

    Blocks = tuple[Tensor, ...]


class Workspace:
    """Scratch memory for tiles, allocated once a call.

    Args:
        like: gives type and device.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._buffers: dict[str, Tensor] = {}
        self._views: dict[tuple[str, int, int], Tensor] = {}

    def __call__(self, name: str, rows: int, columns: int) -> Tensor:
        """An uninitialised (rows, columns) view of the buffer `name`."""
        view = self._views.get((name, rows, columns))
        if view is None:
            if name not in self._buffers or self._buffers[name].numel() < rows * columns:
                self._buffers[name] = self._like.new_empty(rows * columns)
            view = self._buffers[name][: rows * columns].view(rows, columns)
            self._views[name, rows, columns] = view
        return view


class Masks:
    """Roles of pairs of tiles, and masks: 1 where a pair takes a role and 0 elsewhere.

    Args:
        rows: sorted anchors.
        keys: sorted keys; the same object where the anchors are the keys.
        own_image: negatives come from the anchor's image alone.
        negatives: the denominator holds the negatives alone.
        work: scratch memory; a mask is valid until the next one is made.
    """

    def __init__(
        self, rows: Rows, keys: Rows, *, own_image: bool, negatives: bool, work: Workspace
    ) -> None:
        self._rows, self._keys = rows, keys
        self._own_image, self._negatives = own_image, negatives
        self._work = work
        self._labels = rows.split(rows.labels), keys.split(keys.labels)
        self._images: tuple[Blocks, Blocks] | None = None
        if own_image and rows.images is not None and keys.images is not None:
            self._images = rows.split(rows.images), keys.split(keys.images)

    def roles(self, i: int, j: int) -> Roles:
        """What tile (i, j) can hold."""
        return roles(
            self._rows.tiles[i],
            self._keys.tiles[j],
            own_image=self._own_image,
            negatives=self._negatives,
            itself=self._itself(i, j),
        )

    def of(self, i: int, j: int, shares: Roles) -> tuple[Tensor | None, Tensor | None]:
        """Masks of denominator and positives, None where all pairs or no pair take the role."""
        return (
            self._denominator(i, j) if shares.denominator is Share.SOME else None,
            self.positive(i, j, shares),
        )

    def positive(self, i: int, j: int, shares: Roles) -> Tensor | None:
        """Mask of the positives, None where all pairs or no pair are."""
        return self._positive(i, j) if shares.positive is Share.SOME else None

    def _itself(self, i: int, j: int) -> bool:
        """Whether the tile may hold pairs of an anchor with itself."""
        if self._rows is self._keys:
            return i == j
        row, key = self._rows.tiles[i], self._keys.tiles[j]
        return self._rows.own is not None and (row.own_low < key.stop and key.start <= row.own_high)

    def _positive(self, i: int, j: int) -> Tensor:
        """Pairs of one class, the anchor itself excepted."""
        return self._drop_self(self._equal("positive", self._labels, i, j), i, j)

    def _denominator(self, i: int, j: int) -> Tensor:
        """Negatives, and for the form over all keys the positives, too."""
        mask = self._equal("denominator", self._labels, i, j)
        if self._negatives:
            mask.neg_().add_(1.0)
            if self._images is not None:
                mask.mul_(self._equal("helper", self._images, i, j))
        elif self._images is not None:
            torch.maximum(mask, self._equal("helper", self._images, i, j), out=mask)
        else:
            mask.fill_(1.0)
        return self._drop_self(mask, i, j)

    def _equal(self, name: str, ids: tuple[Blocks, Blocks], i: int, j: int) -> Tensor:
        left, right = ids[0][i], ids[1][j]
        return torch.eq(left[:, None], right, out=self._work(name, left.shape[0], right.shape[0]))

    def _drop_self(self, mask: Tensor, i: int, j: int) -> Tensor:
        if not self._itself(i, j):
            return mask
        own = self._rows.own
        if self._rows is self._keys or own is None:
            mask.diagonal().zero_()
            return mask
        row, key = self._rows.tiles[i], self._keys.tiles[j]
        at = torch.arange(key.start, key.stop, device=own.device, dtype=own.dtype)
        itself = torch.eq(own[row.at, None], at, out=self._work("helper", *mask.shape))
        return mask.sub_(itself).clamp_min_(0.0)
