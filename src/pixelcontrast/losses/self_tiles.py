"""Anchors against each other: similarities are symmetric, so half of the tiles suffice.

Letters: D embedding, N anchors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pixelcontrast.losses.tile_math import Pull, Statistics, pair_gradient, softplus_bounded
from pixelcontrast.losses.tiling import Rows, Share
from pixelcontrast.losses.workspace import Masks, Workspace

if TYPE_CHECKING:
    from torch import Tensor

    from pixelcontrast.losses.settings import Settings


class SelfTiles:
    """The pairs among the anchors, for bounded similarities.

    Args:
        anchors: (N, D) sorted.
        rows: their ids and tiles.
        settings: the formula.
        work: scratch memory.
        keep: tiles of 2^s' are kept from sweep to sweep, for small matrices.
    """

    def __init__(
        self,
        anchors: Tensor,
        rows: Rows,
        settings: Settings,
        work: Workspace,
        *,
        keep: bool,
    ) -> None:
        self._rows, self._settings, self._work = rows, settings, work
        self._anchors, self._blocks = anchors, rows.split(anchors)
        self._kept: dict[tuple[int, int], Tensor] | None = {} if keep else None
        self._masks = Masks(
            rows, rows, own_image=settings.own_image, negatives=settings.negatives, work=work
        )
        tiles = range(len(rows.tiles))
        self._pairs = [(i, j, self._masks.roles(i, j)) for i in tiles for j in tiles[i:]]

    def add_denominators(self, stats: Statistics) -> None:
        """First sweep: Z, and the sum of positive similarities where all keys are below."""
        totals, values = self._rows.split(stats.total), self._rows.split(stats.value)
        for i, j, shares in self._pairs:
            count_positives = shares.positive is not Share.NONE and not self._settings.negatives
            if shares.denominator is Share.NONE and not count_positives:
                continue
            logits = self._logits(i, j, self._settings.scale, keep=self._kept is not None)
            denominator, positive = self._masks.of(i, j, shares)
            if count_positives:
                hits = logits
                if positive is not None:
                    hits = torch.mul(logits, positive, out=positive)
                _add_sums(values, i, j, hits)
            power = logits.exp2_()
            if self._kept is not None:
                self._kept[i, j] = power
            if denominator is not None:
                power = torch.mul(power, denominator, out=denominator)
            if shares.denominator is not Share.NONE:
                _add_sums(totals, i, j, power)

    def add_positives(self, stats: Statistics) -> None:
        """Second sweep: the terms of positives with a denominator each."""
        totals, values, sigmas = (
            self._rows.split(part) for part in (stats.total, stats.value, stats.sigma)
        )
        for i, j, shares in self._pairs:
            if shares.positive is Share.NONE:
                continue
            if self._kept is not None and (i, j) in self._kept:
                power = self._kept[i, j]
                inverse = torch.reciprocal(power, out=self._work("logits", *power.shape))
            else:
                inverse = self._logits(i, j, -self._settings.scale).exp2_()
            mask = self._masks.positive(i, j, shares)
            for at, axis in ((i, 1), (j, 0)) if i != j else ((i, 1),):
                value, sigma, _ = softplus_bounded(
                    inverse,
                    totals[at][:, None] if axis else totals[at],
                    mask,
                    axis,
                    self._settings.folds,
                    self._work,
                )
                values[at].add_(value)
                sigmas[at].add_(sigma)

    def gradient(self, pull: Pull) -> Tensor:
        """(N, D) sum over all pairs of their weight times the other vector."""
        out = torch.zeros_like(self._anchors)
        outs, pulls = self._rows.split(out), [pull.part(t.at) for t in self._rows.tiles]
        for i, j, shares in self._pairs:
            if shares == (Share.NONE, Share.NONE):
                continue
            power = None if self._kept is None else self._kept.get((i, j))
            if power is None:
                power = self._logits(i, j, self._settings.scale).exp2_()
            weight = pair_gradient(
                power,
                pulls[i],
                pulls[j],
                shares,
                self._masks.of(i, j, shares),
                self._work,
                negatives=self._settings.negatives,
            )
            outs[i].addmm_(weight, self._blocks[j])
            if i != j:
                outs[j].addmm_(weight.T, self._blocks[i])
        return out

    def _logits(self, i: int, j: int, scale: float, *, keep: bool = False) -> Tensor:
        left, right = self._blocks[i], self._blocks[j]
        shape = left.shape[0], right.shape[0]
        out = left.new_empty(shape) if keep else self._work("logits", *shape)
        return torch.addmm(out, left, right.T, beta=0, alpha=scale, out=out)


def _add_sums(sums: tuple[Tensor, ...], i: int, j: int, tile: Tensor) -> None:
    """Row sums of the tile to its rows and, off the diagonal, column sums to its columns."""
    sums[i].add_(tile.sum(1))
    if i != j:
        sums[j].add_(tile.sum(0))
