"""The contrast loss through whole rows of the similarity matrix, its gradient in closed form.

With nu_i the log-sum-exp of anchor i over its denominator, n_i its number of positives and
p_ij = e^(s_ij - nu_i), the gradient of "negatives" (Wang et al., ICCV 2021) by s_ij is
-sigmoid(nu_i - s_ij) / n_i at positives and p_ij times the sum of their sizes at negatives; that of
"all" (Zhao et al., ICCV 2021) is p_ij, less 1 / n_i at positives.

Few operations, none of which waits for a device, and any temperature. A large matrix is computed in
blocks of rows, and again in the backward pass. Letters: D embedding, N anchors, K keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from pixelcontrast.losses.problem import AnchorTerms, refuse_second_order, statistics_dtype
from pixelcontrast.losses.tile_math import LOG2E

if TYPE_CHECKING:
    from pixelcontrast.losses.problem import Contrast

PAIRS = 2**22
"""Similarities of one block: 16 MiB in float32, of which about five copies live at a time."""
FAR = 1e30
"""Below every similarity by more than its type resolves, yet finite: a row without a single entry
stays a row of numbers."""
MOST = 2.0**100
"""Above it, and long before, log(1 + x) is log(x)."""
LN2 = 1 / LOG2E


def matrix_terms(contrast: Contrast) -> AnchorTerms:
    """Loss and number of positives of each anchor."""
    keys = contrast.keys
    loss, positives = _Rows.apply(
        contrast.anchors, None if keys is None else keys.vectors, _roles(contrast)
    )
    return AnchorTerms(loss, positives)


class _Roles(NamedTuple):
    """Everything but the vectors; keys are the anchors, where they are keys, and then the others.

    Ignored keys have labels no anchor has, so that they are never positives.
    """

    labels: Tensor
    key_labels: Tensor
    unused: Tensor
    """(K,) -1 for ignored keys, 0 for others, as floats."""
    images: Tensor | None
    key_images: Tensor | None
    own: Tensor | None
    """(N,) position of each anchor among all keys, negative: absent."""
    mutual: bool
    scale: float
    """log2(e) / temperature."""
    negatives: bool

    @property
    def others(self) -> int:
        """Where the keys start that are not anchors."""
        return len(self.labels) if self.mutual else 0

    def blocks(self) -> list[slice]:
        """Runs of rows, at least one."""
        count = max(len(self.labels), 1)
        step = max(PAIRS // max(len(self.key_labels), 1), 1)
        return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _roles(contrast: Contrast) -> _Roles:
    labels, images, own = [], [], None
    if contrast.mutual:
        labels, images = [contrast.labels], [contrast.images]
    if contrast.keys is not None:
        labels.append(contrast.keys.labels)
        images.append(contrast.keys.images)
        own = contrast.keys.own
        if own is not None and contrast.mutual:
            own = torch.where(own < 0, own, own + len(contrast.labels))
    of_key = _joined(labels)
    unused = of_key.clamp(-1, 0)
    return _Roles(
        contrast.labels.clamp_min(-1),
        of_key + unused,
        unused.to(statistics_dtype(contrast.anchors.dtype)),
        contrast.images,
        None if contrast.images is None else _joined([ids for ids in images if ids is not None]),
        own,
        contrast.mutual,
        contrast.inv_temperature * LOG2E,
        contrast.denominator == "negatives",
    )


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _vectors(anchors: Tensor, keys: Tensor | None, roles: _Roles) -> tuple[Tensor, Tensor]:
    """Anchors and all keys in the type of the statistics."""
    rows = anchors.to(roles.unused.dtype)
    if keys is None:
        return rows, rows
    wide = keys.to(rows.dtype)
    return rows, torch.cat([rows, wide]) if roles.mutual else wide


class _Rows(torch.autograd.Function):
    """Loss and number of positives of each anchor."""

    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, keys: Tensor | None, roles: _Roles
    ) -> tuple[Tensor, Tensor]:
        need_anchors, need_keys = ctx.needs_input_grad[:2]
        blocks = roles.blocks()
        # Anchors that are no keys: their gradient is complete after their block, but for a factor.
        finish = need_anchors and not need_keys and not roles.mutual
        keep = len(blocks) == 1 and (need_anchors or need_keys)
        losses, positives, kept, divisors = [], [], [], []
        with torch.autocast(anchors.device.type, enabled=False):
            rows, all_keys = _vectors(anchors, keys, roles)
            for at in blocks:
                block = _block(rows[at], all_keys, roles, at, with_pull=finish or keep)
                losses.append(block.loss)
                positives.append(block.positives)
                divisors.append(block.divisor)
                if block.pull is not None:
                    kept.append(block.pull @ all_keys if finish else block.pull)
        ctx.roles, ctx.finished = roles, finish
        ctx.save_for_backward(
            anchors,
            None if finish else keys,
            _joined(kept) if kept else None,
            _joined(divisors),
        )
        counts = _joined(positives)
        ctx.mark_non_differentiable(counts)
        return _joined(losses), counts

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        refuse_second_order()
        anchors, keys, kept, divisor = ctx.saved_tensors
        weight = (grad / divisor).mul_(-ctx.roles.scale * LN2)[:, None]
        if ctx.finished:
            return (kept * weight).to(anchors.dtype), None, None
        with torch.autocast(grad.device.type, enabled=False):
            rows, all_keys = _vectors(anchors, keys, ctx.roles)
            collect = _of_blocks if kept is None else _of_whole
            of_anchors, of_keys = collect(
                rows, all_keys, ctx.roles, kept, weight, ctx.needs_input_grad
            )
        return (
            None if of_anchors is None else of_anchors.to(anchors.dtype),
            None if of_keys is None else of_keys.to(keys.dtype),
            None,
        )


def _of_whole(
    rows: Tensor,
    keys: Tensor,
    roles: _Roles,
    pull: Tensor,
    weight: Tensor,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None]:
    """(N, D) gradient of the anchors and (K, D) of the other keys, from the whole `pull`."""
    first = roles.others
    pull = pull * weight
    of_keys = pull[:, first:].T @ rows if needs[1] else None
    if not needs[0]:
        return None, of_keys
    if first:  # a pair of anchors in both its roles
        pull[:, :first] += pull[:, :first].T.clone(memory_format=torch.contiguous_format)
    return pull @ keys, of_keys


def _of_blocks(
    rows: Tensor, keys: Tensor, roles: _Roles, _: None, weight: Tensor, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """The same for a matrix that is computed again."""
    first = roles.others
    of_anchors = torch.zeros_like(rows) if needs[0] else None
    of_keys = torch.zeros_like(keys[first:]) if needs[1] else None
    for at in roles.blocks():
        pull = _block(rows[at], keys, roles, at, with_pull=True).pull
        if pull is None:
            continue
        pull.mul_(weight[at])
        if of_keys is not None:
            of_keys.addmm_(pull[:, first:].T, rows[at])
        if of_anchors is not None:
            of_anchors[at].addmm_(pull, keys)
            if first:
                of_anchors.addmm_(pull[:, :first].T, rows[at])
    return of_anchors, of_keys


class _Block(NamedTuple):
    """Some rows of the matrix."""

    loss: Tensor
    positives: Tensor
    pull: Tensor | None
    """(n, K) negative gradient of each loss by the similarities, not yet divided by `divisor`."""
    divisor: Tensor
    """(n,) number of positives, at least 1."""


def _block(rows: Tensor, keys: Tensor, roles: _Roles, at: slice, *, with_pull: bool) -> _Block:
    """The rows `at`; masks are floats, which CPUs handle several times faster."""
    # Ignored keys are far from everything.
    logits = torch.addmm(roles.unused, rows, keys.T, beta=FAR, alpha=roles.scale)
    if not logits.numel():
        none = logits.sum(1)
        return _Block(none.clone(), none.clone(), logits if with_pull else None, none + 1)
    positive = torch.empty_like(logits)
    torch.eq(roles.labels[at, None], roles.key_labels, out=positive)
    below = logits.sub(positive, alpha=FAR) if roles.negatives else logits.clone()
    if roles.images is not None and roles.key_images is not None:
        elsewhere = (roles.images[at, None] != roles.key_images).to(logits.dtype)
        below -= elsewhere * (FAR - FAR * positive)
    if roles.mutual:
        positive.diagonal(at.start).zero_()
        if not roles.negatives:
            below.diagonal(at.start).fill_(-FAR)
    if roles.own is not None:
        itself = roles.own[at, None] == torch.arange(len(keys), device=logits.device)
        positive.masked_fill_(itself, 0)
        below.masked_fill_(itself, -FAR)

    count = positive.sum(1)
    highest = below.amax(1, keepdim=True)
    power = below.sub_(highest).exp2_()
    total = power.sum(1, keepdim=True)
    gap = torch.sub(total.log2() + highest, logits, out=logits)
    if roles.negatives:
        odds = gap.exp2().clamp_max_(MOST).mul_(positive)
        attract = odds / (odds + 1)
        # A CPU takes half the time of log(1 + odds). Odds at their limit: the gap itself.
        loss = torch.maximum(odds.log1p_(), gap.mul_(positive).mul_(LN2), out=gap).sum(1)
        repel = attract.sum(1, keepdim=True)
    else:
        attract, repel = positive, count[:, None]
        loss = gap.mul_(positive).sum(1).mul_(LN2)
    divisor = count.clamp_min(1)
    pull = torch.addcmul(attract, power, repel / total, value=-1) if with_pull else None
    return _Block(loss / divisor, count, pull, divisor)
