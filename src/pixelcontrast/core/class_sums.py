"""Sums of vectors per class, in one product."""

from __future__ import annotations

import torch
from torch import Tensor


def class_sums(vectors: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Sum of the vectors of every class, and how many there are.

    The product of a membership matrix with the vectors: one operation for all images and
    classes, differentiable, in float32 (or float64), and, unlike atomic additions, the same on
    every call.

    Args:
        vectors: (B, P, D) floating point. A map (B, D, h, w) enters as `maps.flatten(2).mT`.
        labels: (B, P) integers; values outside [0, C) belong to no class.
        num_classes: C.

    Returns:
        (B, C, D) sums and (B, C) counts as int64.
    """
    classes = torch.arange(num_classes, device=labels.device)[:, None]
    member = labels[:, None].long() == classes
    wide = torch.promote_types(vectors.dtype, torch.float32)
    with torch.autocast(vectors.device.type, enabled=False):
        return torch.bmm(member.to(wide), vectors.to(wide)), member.sum(-1)
