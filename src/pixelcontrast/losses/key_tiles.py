"""Anchors against a set of keys: a memory, prototypes, another view, or themselves.

Letters: D embedding, N anchors, K keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pixelcontrast.losses.tile_math import (
    CLAMP,
    Pull,
    Statistics,
    exp2_shifted,
    pair_gradient,
    softplus_any,
    softplus_bounded,
)
from pixelcontrast.losses.tiling import Roles, Rows, Share, Tile
from pixelcontrast.losses.workspace import Masks, Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from pixelcontrast.losses.settings import Settings


MOST_ROWS = 544
"""Rows of one product; more leave a core's cache."""


class KeyTiles:
    """The pairs of the anchors with keys.

    Keys are gathered and converted tile by tile, so that a memory of any type is never copied.

    Args:
        anchors: (N, D) sorted.
        rows: their ids and tiles.
        keys: (K, D) as the user gave them.
        key_rows: ids and tiles of the sorted keys.
        settings: the formula.
        work: scratch memory.
        collect: form the anchors' gradient during the sweeps, for keys that need none.
    """

    def __init__(
        self,
        anchors: Tensor,
        rows: Rows,
        keys: Tensor,
        key_rows: Rows,
        settings: Settings,
        work: Workspace,
        *,
        collect: bool,
    ) -> None:
        self._anchors, self._rows = anchors, rows
        self._keys, self._key_rows = keys, key_rows
        self._settings, self._work = settings, work
        self._masks = Masks(
            rows, key_rows, own_image=settings.own_image, negatives=settings.negatives, work=work
        )
        self._repelled = torch.zeros_like(anchors) if collect else None
        self._attracted = torch.zeros_like(anchors) if collect else None

    def add_denominators(self, stats: Statistics) -> None:
        """First sweep: Z, and the sum of positive similarities where all keys are below."""
        for i, row, j, keys, shares in self._pairs():
            at = row.at
            with_value = shares.positive is not Share.NONE and not self._settings.negatives
            if shares.denominator is Share.NONE and not with_value:
                continue
            logits = self._logits(row, keys, self._settings.scale)
            denominator, positive = self._masks.of(i, j, shares)
            if with_value:
                if self._attracted is not None:
                    self._attracted[at] += keys.sum(0) if positive is None else positive @ keys
                hits = logits if positive is None else positive.mul_(logits)
                stats.value[at] += hits.sum(1)
            if shares.denominator is not Share.NONE:
                self._add_tile(stats, at, logits, denominator, keys)

    def _add_tile(
        self, stats: Statistics, at: slice, logits: Tensor, mask: Tensor | None, keys: Tensor
    ) -> None:
        """One tile of the denominator."""
        repelled = None if self._repelled is None else self._repelled[at]
        if stats.shift is None:
            logits.exp2_()
            if mask is not None:
                logits.mul_(mask)
        else:
            stats.shift[at], factor = exp2_shifted(logits, stats.shift[at], mask)
            stats.total[at] *= factor
            if repelled is not None:
                repelled.mul_(factor[:, None])
        stats.total[at] += logits.sum(1)
        if repelled is not None:
            repelled.addmm_(logits, keys)

    def add_positives(self, stats: Statistics) -> None:
        """Second sweep: the terms of positives with a denominator each."""
        log2_total = None if stats.shift is None else stats.log2_total()
        for i, row, j, keys, shares in self._pairs():
            if shares.positive is Share.NONE:
                continue
            at = row.at
            mask = self._masks.positive(i, j, shares)
            if log2_total is None:
                inverse = self._logits(row, keys, -self._settings.scale).exp2_()
                value, hits, sigma = softplus_bounded(
                    inverse, stats.total[at, None], mask, 1, self._settings.folds, self._work
                )
            else:
                logits = self._logits(row, keys, self._settings.scale)
                value, hits, sigma = softplus_any(logits, log2_total[at], mask)
            stats.value[at] += value
            stats.sigma[at] += hits
            if self._attracted is not None:
                self._attracted[at].addmm_(sigma, keys)

    def collected(self, repel: Tensor, attract: Tensor) -> Tensor:
        """(N, D) gradient of every anchor formed during the sweeps, for anchor weights of 1.

        Args:
            repel: (N,) weight of the sum over the denominator.
            attract: (N,) weight of the sum over the positives.
        """
        if self._repelled is None or self._attracted is None:
            raise RuntimeError("these sweeps collected no gradient")
        out = self._repelled.mul_(repel[:, None]).sub_(self._attracted.mul_(attract[:, None]))
        self._repelled = self._attracted = None
        return out

    def gradient(
        self, pull: Pull, *, need_anchors: bool, need_keys: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """(N, D) of the sorted anchors and (K, D) of the keys in the user's order.

        Each is the sum over all pairs of their weight times the other vector.
        """
        of_anchors = torch.zeros_like(self._anchors) if need_anchors else None
        of_keys = self._anchors.new_zeros(self._keys.shape) if need_keys else None
        of_tile, current = None, -1
        for i, row, j, keys, shares in self._pairs():
            if j != current:
                self._store(of_keys, of_tile, current)
                of_tile, current = torch.zeros_like(keys) if need_keys else None, j
            if shares == (Share.NONE, Share.NONE):
                continue
            part = pull.part(row.at)
            power = self._logits(row, keys, self._settings.scale)
            if part.shift is not None:
                power.sub_(part.shift[:, None]).clamp_max_(CLAMP)
            weight = pair_gradient(
                power.exp2_(),
                part,
                None,
                shares,
                self._masks.of(i, j, shares),
                self._work,
                negatives=self._settings.negatives,
            )
            if of_anchors is not None:
                of_anchors[row.at].addmm_(weight, keys)
            if of_tile is not None:
                of_tile.addmm_(weight.T, self._anchors[row.at])
        self._store(of_keys, of_tile, current)
        return of_anchors, of_keys

    def _store(self, of_keys: Tensor | None, of_tile: Tensor | None, j: int) -> None:
        """The gradient of one tile of keys at its place."""
        if of_keys is not None and of_tile is not None:
            at, order = self._key_rows.tiles[j].at, self._key_rows.order
            of_keys[at if order is None else order[at]] = of_tile

    def _pairs(self) -> Iterator[tuple[int, Tile, int, Tensor, Roles]]:
        """All tiles, keys outside, with the vectors of the keys.

        Neighbouring rows whose pairs all take the same role come as one tile: their product is
        faster, and they need no mask.
        """
        for j, key in enumerate(self._key_rows.tiles):
            keys = self._key_rows.take_tile(self._keys, key, self._anchors.dtype)
            last: tuple[int, Tile, Roles] | None = None
            for i, row in enumerate(self._rows.tiles):
                shares = self._masks.roles(i, j)
                if last is not None:
                    if (
                        shares == last[2]
                        and Share.SOME not in shares
                        and row.stop - last[1].start <= MOST_ROWS
                    ):
                        last = i, last[1]._replace(stop=row.stop), shares
                        continue
                    yield last[0], last[1], j, keys, last[2]
                last = i, row, shares
            if last is not None:
                yield last[0], last[1], j, keys, last[2]

    def _logits(self, row: Tile, keys: Tensor, scale: float) -> Tensor:
        anchors = self._anchors[row.at]
        out = self._work("logits", len(anchors), len(keys))
        return torch.addmm(out, anchors, keys.T, beta=0, alpha=scale, out=out)
