"""The kernels for NVIDIA GPUs behind the interface of the other engines.

Letters: D embedding, N anchors, K keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pixelcontrast.losses import triton_backend
from pixelcontrast.losses.problem import (
    AnchorTerms,
    Contrast,
    Denominator,
    refuse_second_order,
)

LAST = torch.iinfo(torch.int64).max
"""Label of what has no role, so that it is sorted behind everything else."""


def fits(contrast: Contrast) -> bool:
    """Whether the kernels compute this problem: one key set, negatives from every image."""
    keys = contrast.keys
    return (
        contrast.anchors.is_cuda
        and contrast.images is None
        and not (contrast.mutual and keys is not None and keys.own is not None)
        and triton_backend.triton_available()
        and triton_backend.supports(contrast.anchors.dtype, contrast.anchors.shape[1])
    )


@torch.compiler.disable  # type: ignore[untyped-decorator]
def fused_terms(contrast: Contrast) -> AnchorTerms:
    """Loss and number of positives of each anchor by the fused kernels.

    Rows without a role are sorted last, and the kernels read from device memory how many have one.
    """
    anchors, labels = contrast.anchors, contrast.labels
    keys, key_labels = None, labels
    own: Tensor | None = torch.arange(len(labels), device=labels.device)
    if contrast.keys is not None:
        keys, key_labels = contrast.keys.vectors.to(anchors.dtype), contrast.keys.labels
        if contrast.mutual:
            keys, key_labels = torch.cat([anchors, keys]), torch.cat([labels, key_labels])
        else:
            own = contrast.keys.own
    with torch.no_grad():
        plan = _plan(labels, None if keys is None else key_labels, own, contrast)
    loss, positives = _Fused.apply(anchors, keys, plan)
    return AnchorTerms(loss, positives)


@dataclass(frozen=True, slots=True)
class _Plan:
    order: Tensor
    labels: Tensor
    key_order: Tensor | None
    key_labels: Tensor
    own: Tensor | None
    counts: Tensor
    """(2,) anchors and keys with a role."""
    inv_temperature: float
    denominator: Denominator

    def sides(self, anchors: Tensor, keys: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sorted anchors and keys; one tensor where the anchors are the keys."""
        left = anchors[self.order]
        if keys is None or self.key_order is None:
            return left, left
        return left, keys[self.key_order]


def _plan(
    labels: Tensor, key_labels: Tensor | None, own: Tensor | None, contrast: Contrast
) -> _Plan:
    """Rows and keys sorted by class, those without a role last."""
    parts = [labels] if key_labels is None else [labels, key_labels]
    ordered = [_sorted(part) for part in parts]
    counts = torch.stack([(ordered[side].values < LAST).sum() for side in (0, -1)])
    order, key_order = ordered[0].indices, ordered[-1].indices
    sorted_own = None
    if own is not None and len(key_order):
        place = torch.empty_like(key_order)
        place[key_order] = torch.arange(len(key_order), device=labels.device)
        place = place.masked_fill(parts[-1] < 0, -1)
        mine = own[order]
        sorted_own = place[mine.clamp_min(0)].masked_fill(mine < 0, -1)
    return _Plan(
        order,
        ordered[0].values,
        None if key_labels is None else key_order,
        ordered[-1].values,
        sorted_own,
        counts,
        contrast.inv_temperature,
        contrast.denominator,
    )


def _sorted(labels: Tensor) -> torch.return_types.sort:
    return labels.masked_fill(labels < 0, LAST).sort(stable=True)


class _Fused(torch.autograd.Function):
    """Loss and number of positives of each anchor by the kernels."""

    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, keys: Tensor | None, plan: _Plan
    ) -> tuple[Tensor, Tensor]:
        left, right = plan.sides(anchors, keys)
        terms = triton_backend.forward(
            left,
            plan.labels,
            right,
            plan.key_labels,
            plan.own,
            plan.counts,
            plan.inv_temperature,
            plan.denominator,
        )
        ctx.plan = plan
        ctx.save_for_backward(anchors, keys, *terms[1:])
        loss, positives = (torch.empty_like(x).index_copy_(0, plan.order, x) for x in terms[::2])
        ctx.mark_non_differentiable(positives)
        return loss, positives

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        refuse_second_order()
        plan: _Plan = ctx.plan
        anchors, keys, lse, positives, share = ctx.saved_tensors
        need_anchors, need_keys = ctx.needs_input_grad[:2]
        left, right = plan.sides(anchors, keys)
        weight = grad[plan.order] * (positives > 0)
        of_left, of_right = triton_backend.backward(
            left,
            plan.labels,
            right,
            plan.key_labels,
            plan.own,
            plan.counts,
            plan.inv_temperature,
            plan.denominator,
            lse,
            positives,
            share,
            weight,
            need_anchors,
            need_keys,
            keys is None,
        )
        return (
            _put_back(of_left, anchors, plan.order),
            _put_back(of_right, keys, plan.key_order),
            None,
        )


def _put_back(rows: Tensor | None, like: Tensor | None, order: Tensor | None) -> Tensor | None:
    if rows is None or like is None or order is None:
        return None
    return torch.empty_like(like).index_copy_(0, order, rows.to(like.dtype))
