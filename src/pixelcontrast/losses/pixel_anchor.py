"""The pixel-anchor loss: all pixels of a class against one anchor of that class.

Sung et al., "Contextrast: Contextual Contrastive Learning for Semantic Segmentation" (CVPR 2024).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from pixelcontrast.core.distributed import all_reduce_sum, gather_rows_with_grad, world_size
from pixelcontrast.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

_NOTHING = -1e30
"""Logit of what is no negative: finite, so that a class without negatives gets no NaN gradient."""


class PixelAnchorLoss(NamedTuple):
    """The loss of one feature map and what it saw; all but the loss without gradient."""

    loss: Tensor
    """() mean over the classes that occur; 0, attached to the graph, when none does."""
    positive_similarity: Tensor
    """() mean inner product of anchors and positives; 0 without any."""
    negative_similarity: Tensor
    """() mean inner product of anchors and negatives; 0 without any."""


def pixel_anchor_loss(
    anchors_CD: Tensor,
    embedding: Tensor,
    labels: Tensor,
    negatives: Tensor,
    *,
    temperature: float = 0.1,
    across_devices: bool = False,
) -> PixelAnchorLoss:
    """InfoNCE with class anchors as reference (equations 5 and 6 for one level).

    For class n with anchor a, positives z+ (its pixels) and negatives z- the loss is the mean
    over z+ of `-log( e^(a.z+/tau) / (e^(a.z+/tau) + sum over z- of e^(a.z-/tau)) )`, computed as
    `softplus( logsumexp over z- of a.z-/tau  -  a.z+/tau )`. A class without negatives
    contributes 0, a class without pixels does not count. All pixels take part: there are only
    C products a pixel.

    Args:
        anchors_CD: (C, D) one anchor a class; rows of classes that do not occur are not used.
        embedding: (B, D, h, w) or (B, D, P).
        labels: (B, h, w) or (B, P) class ids; values outside [0, C) are left out.
        negatives: (B, C, h, w) or (B, C, P) bool: the pixel is a negative of the class.
        temperature: tau. The CVPR paper's value is not known; 0.1 is that of the multi-scale
            contrast it builds on (Pissas et al., ECCV 2022).
        across_devices: positives and negatives of all processes count as one batch. The loss is
            then this process's share, such that the average over processes is the whole.

    Raises:
        ConfigError: a temperature that is not positive.
    """
    if not temperature > 0:
        raise ConfigError(f"temperature must be positive, not {temperature}")
    classes = torch.arange(len(anchors_CD), device=labels.device)[:, None]
    wide = torch.promote_types(embedding.dtype, torch.float32)
    with torch.autocast(embedding.device.type, enabled=False):
        pixels = embedding.flatten(2).to(wide)
        logits = torch.matmul(anchors_CD.to(wide) / temperature, pixels)
        member = (labels.flatten(1)[:, None].long() == classes).to(wide)
        negative = negatives.flatten(2)
        count = member.sum((0, 2))
        below = torch.where(negative, logits, _NOTHING).logsumexp((0, 2))
        if across_devices:
            count = all_reduce_sum(count)
            below = gather_rows_with_grad(below[None], same_rows=True).logsumexp(0)
        # Products with the membership instead of look-ups: their gradients need no atomic sums.
        own = (member * logits).sum(1)
        threshold = (member * below[:, None]).sum(1)
        weight = (count > 0) / (count.clamp_min(1) * (count > 0).sum().clamp_min(1))
        weights = (member * weight.to(wide)[:, None]).sum(1)
        loss = (weights * F.softplus(threshold - own)).sum()
    with torch.no_grad():
        positive = own.sum() / member.sum().clamp_min(1)
        other = (logits * negative).sum() / negative.sum().clamp_min(1)
    share = world_size() if across_devices else 1
    return PixelAnchorLoss(loss * share, positive * temperature, other * temperature)
