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
from pixelcontrast.losses.tiling import Roles, Rows, Share, Tile, roles
from pixelcontrast.losses.workspace import Masks, Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from pixelcontrast.losses.settings import Settings


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
        for row, key, vectors, shares in self._pairs():
            count_positives = shares.positive is not Share.NONE and not self._settings.negatives
            if shares.denominator is Share.NONE and not count_positives:
                continue
            at = slice(row.start, row.stop)
            logits = self._logits(row, vectors, self._settings.scale)
            denominator, positive = self._role_masks(row, key, shares)
            if count_positives:
                if self._attracted is not None:
                    self._attracted[at] += (
                        vectors.sum(0) if positive is None else positive @ vectors
                    )
                hits = logits if positive is None else positive.mul_(logits)
                stats.value[at] += hits.sum(1)
            if shares.denominator is Share.NONE:
                continue
            if stats.shift is None:
                power = logits.exp2_()
                if denominator is not None:
                    power.mul_(denominator)
            else:
                power = logits
                stats.shift[at], factor = exp2_shifted(power, stats.shift[at], denominator)
                stats.total[at] *= factor
                if self._repelled is not None:
                    self._repelled[at] *= factor[:, None]
            stats.total[at] += power.sum(1)
            if self._repelled is not None:
                self._repelled[at].addmm_(power, vectors)

    def add_positives(self, stats: Statistics) -> None:
        """Second sweep: the terms of positives with a denominator each."""
        log2_total = None if stats.shift is None else stats.log2_total()
        for row, key, vectors, shares in self._pairs():
            if shares.positive is Share.NONE:
                continue
            at = slice(row.start, row.stop)
            mask = self._role_masks(row, key, Roles(Share.NONE, shares.positive))[1]
            if log2_total is None:
                value, hits, sigma = softplus_bounded(
                    self._logits(row, vectors, -self._settings.scale).exp2_(),
                    stats.total[at, None],
                    mask,
                    1,
                    self._settings.folds,
                    self._work,
                )
            else:
                logits = self._logits(row, vectors, self._settings.scale)
                value, hits, sigma = softplus_any(logits, log2_total[at], mask)
            stats.value[at] += value
            stats.sigma[at] += hits
            if self._attracted is not None:
                self._attracted[at].addmm_(sigma, vectors)

    def collected(self, repel: Tensor, attract: Tensor) -> Tensor:
        """(N, D) gradient of every anchor formed during the sweeps, for anchor weights of 1.

        Args:
            repel: (N,) weight of the sum over the denominator.
            attract: (N,) weight of the sum over the positives.
        """
        if self._repelled is None or self._attracted is None:
            raise RuntimeError("this sweep collected no gradient")
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
        of_tile, current = None, None
        for row, key, vectors, shares in self._pairs():
            if shares == (Share.NONE, Share.NONE):
                continue
            at = slice(row.start, row.stop)
            part = pull.part(at)
            logits = self._logits(row, vectors, self._settings.scale)
            if part.shift is not None:
                logits.sub_(part.shift[:, None]).clamp_max_(CLAMP)
            weight = pair_gradient(
                logits.exp2_(),
                part,
                None,
                shares,
                self._role_masks(row, key, shares),
                self._work,
                negatives=self._settings.negatives,
            )
            if of_anchors is not None:
                of_anchors[at].addmm_(weight, vectors)
            if of_keys is not None:
                if key is not current:
                    self._store(of_keys, of_tile, current)
                    of_tile, current = torch.zeros_like(vectors), key
                of_tile.addmm_(weight.T, self._anchors[at])
        if of_keys is not None:
            self._store(of_keys, of_tile, current)
        return of_anchors, of_keys

    def _store(self, of_keys: Tensor, of_tile: Tensor | None, tile: Tile | None) -> None:
        """The gradient of one tile of keys at its place."""
        if of_tile is None or tile is None:
            return
        at = slice(tile.start, tile.stop)
        order = self._key_rows.order
        of_keys[at if order is None else order[at]] = of_tile

    def _pairs(self) -> Iterator[tuple[Tile, Tile, Tensor, Roles]]:
        """All tiles, keys outside, with the vectors of the keys."""
        settings = self._settings
        for key in self._key_rows.tiles:
            vectors = self._key_rows.take_tile(self._keys, key, self._anchors.dtype)
            for row in self._rows.tiles:
                shares = roles(
                    row,
                    key,
                    own_image=settings.own_image,
                    negatives=settings.negatives,
                    itself=self._masks.itself(row, key),
                )
                yield row, key, vectors, shares

    def _logits(self, row: Tile, vectors: Tensor, scale: float) -> Tensor:
        out = self._work("logits", row.stop - row.start, len(vectors))
        anchors = self._anchors[row.start : row.stop]
        return torch.addmm(out, anchors, vectors.T, beta=0, alpha=scale, out=out)

    def _role_masks(
        self, row: Tile, key: Tile, shares: Roles
    ) -> tuple[Tensor | None, Tensor | None]:
        some = Share.SOME
        return (
            self._masks.denominator(row, key) if shares.denominator is some else None,
            self._masks.positive(row, key) if shares.positive is some else None,
        )
