"""Labels that a network predicts itself, how far to trust them, and how they turned out.

Letters: B batch, C classes, H W image, h w feature map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcontrast.core.class_sums import class_sums

_STATISTICS_STEP = 4  # every fourth row and column gives shares to a percent, at 1/16 of the cost


@dataclass(frozen=True, slots=True)
class PseudoLabels:
    """What a network says about the pixels of unlabelled images, without gradient."""

    labels: Tensor
    """(B, H, W) int64, the most probable class."""
    confidence: Tensor
    """(B, H, W) float32, its probability; 0 where the scores are not finite."""
    valid: Tensor
    """(B, H, W) bool: a pixel of the photograph, not padding, with finite scores."""
    entropy: Tensor | None = None
    """(B, H, W) float32 in nats, in [0, ln C]; None unless asked for."""


@torch.no_grad()
def pseudo_labels(
    logits: Tensor, valid: Tensor, *, align_corners: bool = False, entropy: bool = False
) -> PseudoLabels:
    """Class, confidence and entropy of every pixel at the size of the image.

    Scores are brought to full size first and compared there, in float32. Pixels whose scores are
    not finite become invalid instead of spreading NaN.

    Args:
        logits: (B, C, h, w) scores at any resolution.
        valid: (B, H, W) bool, which pixels show the photograph.
        align_corners: grid convention of the up-sampling.
        entropy: also compute the entropy.
    """
    scores = logits.detach().float()
    if scores.shape[-2:] != valid.shape[-2:]:
        scores = F.interpolate(
            scores, size=valid.shape[-2:], mode="bilinear", align_corners=align_corners
        )
    total = scores.logsumexp(1)
    best, labels = scores.max(1)
    finite = total.isfinite()
    spread = None
    if entropy:
        probability = (scores - total[:, None]).exp()
        spread = torch.where(finite, torch.special.entr(probability).sum(1), 0.0)
    return PseudoLabels(
        labels=labels,
        confidence=torch.where(finite, (best - total).exp(), 0.0),
        valid=valid & finite,
        entropy=spread,
    )


def confident(pseudo: PseudoLabels, threshold: float) -> Tensor:
    """(B, H, W) bool: valid pixels with confidence >= threshold (FixMatch, UniMatch).

    A threshold of 0 keeps every valid pixel.
    """
    return pseudo.valid & (pseudo.confidence >= threshold)


def entropy_threshold(entropy: Tensor, valid: Tensor, percent: float) -> Tensor:
    """The percentile of the entropies of all valid pixels, interpolated linearly (U2PL).

    Computed without the host having to know how many pixels are valid.

    Args:
        entropy: (B, H, W).
        valid: (B, H, W) bool.
        percent: in [0, 100].

    Returns:
        () in the type of `entropy`; 0 without a valid pixel.
    """
    ranked = entropy.masked_fill(~valid, torch.inf).flatten().sort().values
    last = (valid.sum() - 1).clamp_min(0)
    place = last.double() * (percent / 100)
    below = place.floor().long()
    above = torch.minimum(below + 1, last)
    low, high = ranked.index_select(0, torch.stack([below, above])).double().unbind()
    value = low + (place - below) * (high - low)
    return torch.where(valid.any(), value, 0.0).to(entropy.dtype)


def with_ignore(labels: Tensor, keep: Tensor, ignore_index: int) -> Tensor:
    """Labels where `keep` is true, the ignore index elsewhere."""
    return labels.masked_fill(~keep, ignore_index)


@torch.no_grad()
def pseudo_label_statistics(
    pseudo: PseudoLabels,
    keep: Tensor,
    *,
    num_classes: int,
    truth: Tensor | None = None,
) -> dict[str, Tensor]:
    """How many pixels are trusted, which classes they get and, where known, how often rightly.

    Args:
        pseudo: the predicted labels.
        keep: (B, H, W) bool, the pixels that are trained on.
        num_classes: C.
        truth: (B, H, W) hidden ground truth, for nothing but this statistic.

    Returns:
        `kept_share` of the valid pixels, mean `confidence`, `pseudo_share` (C,) of the kept pixels
        and, with `truth`, `pseudo_accuracy` over the kept pixels whose truth is known, and
        `pseudo_precision` (C,): of the kept pixels called c, how many are. NaN for classes without
        a kept pixel.
    """
    step = (..., slice(None, None, _STATISTICS_STEP), slice(None, None, _STATISTICS_STEP))
    labels, valid, kept = pseudo.labels[step], pseudo.valid[step], keep[step]
    shown = valid.sum().clamp_min(1)
    called = labels.masked_fill(~kept, -1).reshape(1, -1)
    columns = [torch.ones_like(called)]
    if truth is not None:
        hidden = truth[step].reshape(1, -1).long()
        known = (hidden >= 0) & (hidden < num_classes)
        columns += [known, known & (hidden == called)]
    sums, _ = class_sums(torch.stack(columns, -1).float(), called, num_classes)
    counts = sums[0].unbind(-1)
    found = {
        "kept_share": kept.sum() / shown,
        "confidence": (pseudo.confidence[step] * valid).sum() / shown,
        "pseudo_share": counts[0] / counts[0].sum().clamp_min(1),
    }
    if truth is not None:
        found["pseudo_accuracy"] = counts[2].sum() / counts[1].sum().clamp_min(1)
        found["pseudo_precision"] = counts[2] / counts[1]
    return found
