"""Anchors against each other: similarities are symmetric, so half of the tiles suffice.

Letters: D embedding, N anchors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pixelcontrast.losses.tile_math import Pull, Statistics, pair_gradient, softplus_bounded
from pixelcontrast.losses.tiling import Roles, Rows, Share, Tile, roles
from pixelcontrast.losses.workspace import Masks, Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from pixelcontrast.losses.settings import Settings


class SelfTiles:
    """The pairs among the anchors, for bounded similarities.

    Args:
        anchors: (N, D) sorted.
        rows: their ids and tiles.
        settings: the formula.
        work: scratch memory.
    """

    def __init__(self, anchors: Tensor, rows: Rows, settings: Settings, work: Workspace) -> None:
        self._anchors, self._rows, self._settings, self._work = anchors, rows, settings, work
        self._masks = Masks(
            rows, rows, own_image=settings.own_image, negatives=settings.negatives, work=work
        )

    def add_denominators(self, stats: Statistics) -> None:
        """First sweep: Z, and the sum of positive similarities where all keys are below."""
        for row, key, shares in self._pairs():
            count_positives = shares.positive is not Share.NONE and not self._settings.negatives
            if shares.denominator is Share.NONE and not count_positives:
                continue
            here, there = slice(row.start, row.stop), slice(key.start, key.stop)
            logits = self._logits(row, key, self._settings.scale)
            mask_denominator, mask_positive = self._role_masks(row, key, shares)
            if count_positives:
                hits = logits
                if mask_positive is not None:
                    hits = torch.mul(logits, mask_positive, out=mask_positive)
                stats.value[here] += hits.sum(1)
                if row is not key:
                    stats.value[there] += hits.sum(0)
            if shares.denominator is Share.NONE:
                continue
            power = logits.exp2_()
            if mask_denominator is not None:
                power.mul_(mask_denominator)
            stats.total[here] += power.sum(1)
            if row is not key:
                stats.total[there] += power.sum(0)

    def add_positives(self, stats: Statistics) -> None:
        """Second sweep: the terms of positives with a denominator each."""
        for row, key, shares in self._pairs():
            if shares.positive is Share.NONE:
                continue
            inverse = self._logits(row, key, -self._settings.scale).exp2_()
            mask = self._role_masks(row, key, Roles(Share.NONE, shares.positive))[1]
            for axis, tile in ((1, row), (0, key)) if row is not key else ((1, row),):
                at = slice(tile.start, tile.stop)
                total = stats.total[at]
                value, sigma, _ = softplus_bounded(
                    inverse,
                    total[:, None] if axis else total,
                    mask,
                    axis,
                    self._settings.folds,
                    self._work,
                )
                stats.value[at] += value
                stats.sigma[at] += sigma

    def gradient(self, pull: Pull) -> Tensor:
        """(N, D) sum over all pairs of their weight times the other vector."""
        out = torch.zeros_like(self._anchors)
        for row, key, shares in self._pairs():
            if shares == (Share.NONE, Share.NONE):
                continue
            here, there = slice(row.start, row.stop), slice(key.start, key.stop)
            weight = pair_gradient(
                self._logits(row, key, self._settings.scale).exp2_(),
                pull.part(here),
                pull.part(there),
                shares,
                self._role_masks(row, key, shares),
                self._work,
                negatives=self._settings.negatives,
            )
            out[here].addmm_(weight, self._anchors[there])
            if row is not key:
                out[there].addmm_(weight.T, self._anchors[here])
        return out

    def _pairs(self) -> Iterator[tuple[Tile, Tile, Roles]]:
        """The tiles on and above the diagonal."""
        settings, tiles = self._settings, self._rows.tiles
        for k, row in enumerate(tiles):
            for key in tiles[k:]:
                yield (
                    row,
                    key,
                    roles(
                        row,
                        key,
                        own_image=settings.own_image,
                        negatives=settings.negatives,
                        itself=row is key,
                    ),
                )

    def _logits(self, row: Tile, key: Tile, scale: float) -> Tensor:
        out = self._work("logits", row.stop - row.start, key.stop - key.start)
        left, right = self._anchors[row.start : row.stop], self._anchors[key.start : key.stop]
        return torch.addmm(out, left, right.T, beta=0, alpha=scale, out=out)

    def _role_masks(
        self, row: Tile, key: Tile, shares: Roles
    ) -> tuple[Tensor | None, Tensor | None]:
        some = Share.SOME
        return (
            self._masks.denominator(row, key) if shares.denominator is some else None,
            self._masks.positive(row, key) if shares.positive is some else None,
        )
