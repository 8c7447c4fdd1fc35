"""Losses of one view against labels that another view, or a teacher, predicted.

All of them compare at full size in float32, leave out what is not trusted without the host having
to know how much that is, and give a zero attached to the graph when nothing is. On several
processes each returns its share of the mean over all (`mean_over_ranks`).

Letters: B batch, C classes, H W image, h w feature map.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pixelcontrast.core.distributed import all_reduce_sum, mean_over_ranks, world_size


def pixel_cross_entropy(logits: Tensor, labels: Tensor, *, align_corners: bool = False) -> Tensor:
    """Cross-entropy of every pixel, in float32.

    Args:
        logits: (B, C, h, w) scores at any resolution; brought to the size of the labels.
        labels: (B, H, W) class ids; what lies outside [0, C) gives some finite value.
        align_corners: grid convention of the up-sampling.

    Returns:
        (B, H, W).
    """
    scores = _full_size(logits, labels, align_corners=align_corners)
    target = labels.long().clamp(0, logits.shape[1] - 1)
    return F.cross_entropy(scores, target, reduction="none")


def masked_consistency(
    logits: Tensor, labels: Tensor, keep: Tensor, valid: Tensor, *, align_corners: bool = False
) -> Tensor:
    """Cross-entropy summed over the kept pixels, divided by the number of valid ones.

    FixMatch (Sohn et al. 2020, equation 4) per pixel, as in UniMatch (Yang et al. 2023): pixels
    below the threshold still count in the divisor, so the loss grows with the share that is kept.

    Args:
        logits: (B, C, h, w) of the strong view.
        labels: (B, H, W) pseudo-labels.
        keep: (B, H, W) bool, the trusted pixels.
        valid: (B, H, W) bool, the pixels of the photograph.
        align_corners: grid convention of the up-sampling.

    Returns:
        A float32 scalar.
    """
    losses = pixel_cross_entropy(logits, labels, align_corners=align_corners)
    return mean_over_ranks((losses * (keep & valid)).sum(), valid.sum().float())


def reweighted_consistency(
    logits: Tensor, labels: Tensor, keep: Tensor, *, align_corners: bool = False
) -> Tensor:
    """Mean cross-entropy over the kept pixels, times all pixels over kept pixels (U2PL).

    Wang et al. 2022: the factor is the reciprocal of the share of reliable pixels. Pixels that are
    not valid count among all pixels, as in the released code.

    Args:
        logits: (B, C, h, w) of the student.
        labels: (B, H, W) pseudo-labels.
        keep: (B, H, W) bool, the reliable pixels.
        align_corners: grid convention of the up-sampling.

    Returns:
        A float32 scalar.
    """
    losses = pixel_cross_entropy(logits, labels, align_corners=align_corners)
    kept = keep.sum().float()
    factor = keep.numel() * world_size() / all_reduce_sum(kept).clamp_min(1)
    return factor * mean_over_ranks((losses * keep).sum(), kept)


def image_weighted_consistency(
    logits: Tensor, labels: Tensor, confident: Tensor, valid: Tensor, *, align_corners: bool = False
) -> Tensor:
    """Mean over the valid pixels, each image weighted by its share of confident pixels (PRCL).

    Every valid pixel contributes, confident or not; an image nobody is sure about has no weight.

    Args:
        logits: (B, C, h, w) of the student.
        labels: (B, H, W) pseudo-labels.
        confident: (B, H, W) bool, the pixels that decide the weight (PRCL: confidence >= 0.97).
        valid: (B, H, W) bool.
        align_corners: grid convention of the up-sampling.

    Returns:
        A float32 scalar.
    """
    losses = pixel_cross_entropy(logits, labels, align_corners=align_corners)
    shown = valid.sum((1, 2)).float()
    weight = (confident & valid).sum((1, 2)) / shown.clamp_min(1)
    return mean_over_ranks(((losses * valid).sum((1, 2)) * weight).sum(), shown.sum())


def squared_consistency(
    logits: Tensor, probabilities: Tensor, valid: Tensor, *, align_corners: bool = False
) -> Tensor:
    """Squared distance of two class distributions, summed over classes, mean over valid pixels.

    The mean teacher's loss: Tarvainen and Valpola 2017; with mixed images French et al. 2020.

    Args:
        logits: (B, C, h, w) of the student.
        probabilities: (B, C, H, W) of the teacher, without gradient.
        valid: (B, H, W) bool.
        align_corners: grid convention of the up-sampling.

    Returns:
        A float32 scalar.
    """
    scores = _full_size(logits, valid, align_corners=align_corners)
    distances = (scores.softmax(1) - probabilities.float()).square().sum(1)
    return mean_over_ranks((distances * valid).sum(), valid.sum().float())


def _full_size(logits: Tensor, like: Tensor, *, align_corners: bool) -> Tensor:
    scores = logits.float()
    if scores.shape[-2:] == like.shape[-2:]:
        return scores
    return F.interpolate(scores, like.shape[-2:], mode="bilinear", align_corners=align_corners)
