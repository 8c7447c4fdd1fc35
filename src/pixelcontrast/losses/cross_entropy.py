"""Pixel-wise cross-entropy over full-size labels, with hard-example mining."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pixelcontrast.core.distributed import mean_over_ranks


def segmentation_cross_entropy(
    logits: Tensor,
    mask: Tensor,
    *,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    ohem_threshold: float | None = None,
    ohem_min_kept: int = 100_000,
    align_corners: bool = False,
) -> Tensor:
    """Mean cross-entropy of logits that are first brought to the size of the labels.

    With `ohem_threshold`, only pixels whose probability of the true class is below the threshold
    count, but never fewer than `ohem_min_kept` (online hard example mining as in OCNet/HRNet code).

    Args:
        logits: (B, C, h, w) scores at any resolution.
        mask: (B, H, W) class ids.
        ignore_index: label of pixels that do not count.
        class_weights: (C,) weight per class; the mean is weighted accordingly.
        ohem_threshold: probability below which a pixel counts as hard; HRNet uses 0.9, U2PL 0.7.
        ohem_min_kept: least number of pixels that are kept, over the whole batch.
        align_corners: grid convention of the up-sampling.

    Returns:
        A float32 scalar; on several processes the share of this one in the mean over all. A batch
        without any labelled pixel gives a zero attached to the graph.
    """
    target = mask.long()
    scores = logits.float()
    if scores.shape[-2:] != target.shape[-2:]:
        scores = F.interpolate(
            scores, size=target.shape[-2:], mode="bilinear", align_corners=align_corners
        )
    weights = None if class_weights is None else class_weights.float()
    losses = F.cross_entropy(
        scores, target, weight=weights, ignore_index=ignore_index, reduction="none"
    )
    valid = target != ignore_index
    kept = valid
    if ohem_threshold is not None:
        kept = _hard_pixels(scores.detach(), target, valid, ohem_threshold, ohem_min_kept)
    per_pixel = kept.float()
    if weights is not None:
        per_pixel = per_pixel * weights[target.clamp(0, weights.numel() - 1)]
    return mean_over_ranks((losses * kept).sum(), per_pixel.sum())


def _hard_pixels(
    scores: Tensor, target: Tensor, valid: Tensor, threshold: float, min_kept: int
) -> Tensor:
    """Mask of the pixels that hard-example mining keeps, without a host synchronisation."""
    index = target.clamp(0, scores.shape[1] - 1).unsqueeze(1)
    probability = (scores.gather(1, index).squeeze(1) - scores.logsumexp(1)).exp()
    ranked = probability.masked_fill(~valid, 2.0).flatten()
    at_least = min(min_kept, ranked.numel())
    floor = ranked.kthvalue(at_least).values if at_least else ranked.new_zeros(())
    return valid & (probability <= floor.clamp_min(threshold))
