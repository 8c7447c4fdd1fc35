"""The elementwise work on one tile of similarities.

All similarities are in units of log 2, s' = <a, b> log2(e) / temperature, because 2^x is several
times cheaper than e^x. Z is the sum of 2^s' over the denominator of an anchor.
Letters: D embedding, N anchors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from pixelcontrast.losses.tiling import Share

if TYPE_CHECKING:
    from torch import Tensor

    from pixelcontrast.losses.tiling import Roles
    from pixelcontrast.losses.workspace import Workspace

LN2 = math.log(2.0)
LOG2E = 1.0 / LN2
LOWEST = -1e30
"""Start of a running maximum: below every similarity, and its difference to itself is 0."""
CLAMP = 120.0
"""2^120 is finite in float32; larger similarities above the denominator change nothing."""


@dataclass(slots=True)
class Statistics:
    """Sums over the keys of each sorted anchor."""

    total: Tensor
    """(N,) Z, divided by 2^shift."""
    shift: Tensor | None
    """(N,) running maximum of s'; None: the similarities are bounded and need none."""
    value: Tensor
    """(N,) sum over positives of log2(1 + Z / 2^s') or, with all keys below, of s'."""
    sigma: Tensor
    """(N,) sum over positives of Z / (Z + 2^s')."""

    @staticmethod
    def zeros(like: Tensor, *, bounded: bool) -> Statistics:
        """Sums over nothing, in the shape of `like`."""
        zero = torch.zeros_like(like)
        shift = None if bounded else torch.full_like(zero, LOWEST)
        return Statistics(zero, shift, zero.clone(), zero.clone())

    def log2_total(self) -> Tensor:
        """(N,) log2 Z, minus infinity over nothing."""
        return self.total.log2() if self.shift is None else self.total.log2() + self.shift


class Pull(NamedTuple):
    """What the gradient of a tile needs of each anchor."""

    repel: Tensor
    """(N,) weight of 2^s' for the keys of the denominator."""
    attract: Tensor
    """(N,) weight / positives; with Z below the bar, times Z."""
    total: Tensor
    """(N,) Z where `shift` is None, else 1 or, without a denominator, 0."""
    shift: Tensor | None
    """(N,) log2 Z, plus infinity without a denominator; None: bounded similarities."""

    def times(self, weight: Tensor) -> Pull:
        """Those of anchors with a weight each."""
        return self._replace(repel=self.repel * weight, attract=self.attract * weight)

    def part(self, at: slice) -> Pull:
        """Those of some anchors."""
        shift = None if self.shift is None else self.shift[at]
        return Pull(self.repel[at], self.attract[at], self.total[at], shift)


def exp2_shifted(logits: Tensor, shift: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The running maximum after this tile, and the factor for sums formed with the old one.

    `logits` become 2^(s' - new maximum) in place, 0 outside the mask.
    """
    if mask is not None:
        logits.masked_fill_(mask == 0, float("-inf"))
    new = torch.maximum(shift, logits.amax(1))
    logits.sub_(new[:, None]).exp2_()
    return new, torch.exp2(shift - new)


def softplus_bounded(
    inverse: Tensor, total: Tensor, mask: Tensor | None, axis: int, folds: int, work: Workspace
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums along `axis` of log2(1 + v) and sigma = v / (1 + v), where v = Z 2^-s', and sigma.

    Args:
        inverse: 2^-s' of one tile.
        total: Z, shaped to broadcast.
        mask: positives, or None for all.
        axis: 1 sums the rows of the tile, 0 its columns.
        folds: how often the factors 1 + v are multiplied in pairs before the logarithm, which
            costs ten multiplications.
        work: scratch memory.
    """
    sigma = torch.mul(inverse, total, out=work("sigma", *inverse.shape))
    if mask is not None:
        sigma.mul_(mask)
    above = torch.add(sigma, 1.0, out=work("above", *inverse.shape))
    sigma.div_(above)
    for _ in range(folds):
        size = above.shape[axis]
        half = size // 2
        above.narrow(axis, 0, half).mul_(above.narrow(axis, size - half, half))
        above = above.narrow(axis, 0, size - half)
    return above.log2_().sum(axis), sigma.sum(axis), sigma


def softplus_any(
    logits: Tensor, log2_total: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Row sums of log2(1 + v) and sigma, and sigma, for similarities of any size."""
    over = log2_total[:, None] - logits
    small = torch.exp2(-over.abs())
    sigma = torch.where(over > 0, 1.0, small) / (1 + small)
    value = over.clamp_min(0) + torch.log2(1 + small)
    if mask is not None:
        value, sigma = value * mask, sigma * mask
    return value.sum(1), sigma.sum(1), sigma


def pair_gradient(
    power: Tensor,
    rows: Pull,
    columns: Pull | None,
    shares: Roles,
    masks: tuple[Tensor | None, Tensor | None],
    work: Workspace,
    *,
    negatives: bool,
) -> Tensor:
    """Weight of each pair of a tile in the gradient.

    Args:
        power: 2^s', or 2^(s' - log2 Z) where the rows carry a shift.
        rows: of the anchors along the rows.
        columns: of the anchors along the columns, whose transposed gradient is added; or None.
        shares: of the denominator and of the positives.
        masks: of the same two, where some pairs take the role.
        work: scratch memory.
        negatives: positives are outside the denominator.
    """
    pull = None
    if shares.positive is not Share.NONE:
        pull = _attraction(power, rows, columns, work, negatives=negatives)
        if masks[1] is not None:
            pull.mul_(masks[1])
        if shares.denominator is Share.NONE:
            return pull.neg_()
    push = work("push", *power.shape)
    if columns is None:
        torch.mul(power, rows.repel[:, None], out=push)
    else:
        torch.add(rows.repel[:, None], columns.repel, out=push).mul_(power)
    if masks[0] is not None:
        push.mul_(masks[0])
    return push if pull is None else push.sub_(pull)


def _attraction(
    power: Tensor, rows: Pull, columns: Pull | None, work: Workspace, *, negatives: bool
) -> Tensor:
    """Weight with which each pair attracts if it is a positive one."""
    pull = work("pull", *power.shape)
    if not negatives:
        other = 0.0 if columns is None else columns.attract
        return torch.add(rows.attract[:, None].expand_as(power), other, out=pull)
    torch.add(power, rows.total[:, None], out=pull)
    torch.div(rows.attract[:, None], pull, out=pull)
    if columns is not None:
        other_pull = torch.add(power, columns.total, out=work("push", *power.shape))
        pull.add_(torch.div(columns.attract, other_pull, out=other_pull))
    return pull
