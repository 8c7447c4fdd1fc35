"""Which pixels attract, represent and repel a class when labels are few.

Wang et al., "Semi-Supervised Semantic Segmentation Using Unreliable Pseudo-Labels" (CVPR 2022):
a pixel the teacher is unsure about usually hesitates between a few classes and is certain that it
belongs to none of the others. It gives no label, but a negative for the latter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor

NegativeRule = Literal["paper", "own_label"]


@dataclass(frozen=True, slots=True)
class ClassRoles:
    """The part every pixel of a step plays for the classes."""

    reliable: Tensor
    """(B, h, w) int64 class of pixels whose label is trusted, which make up its centre; else -1."""
    anchors: Tensor
    """(B, h, w) int64 class of those that the teacher agrees with, the candidates for anchors."""
    negatives: Tensor
    """(C, B, h, w) bool: the pixel is a negative key of the class."""


def class_roles(
    labels: Tensor,
    scores: Tensor,
    reliable: Tensor,
    unreliable: Tensor,
    *,
    labelled: int,
    low_rank: int,
    high_rank: int,
    min_probability: float = 0.3,
    negative_rule: NegativeRule = "paper",
) -> ClassRoles:
    """Anchors, centres and negatives of every class, for all images at once.

    With p the class probabilities and rank the number of classes with a larger one: a pixel with a
    trusted label c is an anchor of c if p_c > `min_probability`. A labelled pixel is a negative of
    every other class with rank below `low_rank`, which are the hard ones; an unreliable pixel of
    those with `low_rank` <= rank < `high_rank`: probably not that class, yet not obviously so.
    Pixels with scores that are not finite take no role.

    Args:
        labels: (B, h, w) class ids, ground truth first; outside [0, C): none.
        scores: (B, C, h, w) class scores of the teacher before the soft-max.
        reliable: (B - labelled, h, w) bool, pseudo-labels that are trusted.
        unreliable: (B - labelled, h, w) bool, pixels that may be negatives.
        labelled: number of images with ground truth.
        low_rank: r_l; 3 in the paper.
        high_rank: r_h; 20 in the paper.
        min_probability: delta_p; 0.3 in the paper.
        negative_rule: "own_label" is what the released code does: only unreliable pixels whose
            pseudo-label is the class itself.
    """
    classes = torch.arange(scores.shape[1], device=labels.device)
    scores = scores.float()
    usable = scores.isfinite().all(1)
    ids = labels.long()
    ids = ids.masked_fill(~usable | (ids < 0) | (ids >= len(classes)), -1)
    given = ids[:labelled] >= 0
    trusted = ids.masked_fill(~torch.cat([given, reliable]), -1)
    own = scores.gather(1, ids.clamp_min(0)[:, None])[:, 0]
    agreed = (own - scores.logsumexp(1)).exp() > min_probability

    other = ids[:, None] != classes[:, None, None]
    hard = ranked_between(scores[:labelled], 0, low_rank) & given[:, None] & other[:labelled]
    unlikely = ranked_between(scores[labelled:], low_rank, high_rank)
    unlikely = unlikely & (unreliable & usable[labelled:])[:, None]
    if negative_rule == "own_label":
        hard, unlikely = torch.zeros_like(hard), unlikely & ~other[labelled:]
    return ClassRoles(
        reliable=trusted,
        anchors=trusted.masked_fill(~agreed, -1),
        negatives=torch.cat([hard, unlikely]).transpose(0, 1),
    )


def ranked_between(scores: Tensor, low: int, high: int) -> Tensor:
    """(B, C, h, w) bool: `low` <= number of classes with a larger score < `high`.

    Fewer than r classes are larger exactly if the r-th largest is not, so two order statistics
    take the place of ranks. Equal scores share a rank.

    Args:
        scores: (B, C, h, w).
        low: first rank that counts, 0 is the most likely class.
        high: first rank that no longer counts.
    """
    classes = scores.shape[1]
    inside = torch.ones_like(scores, dtype=torch.bool)
    if high <= 0 or low >= classes:
        return torch.zeros_like(inside)
    if high < classes:
        inside &= scores >= _nth_largest(scores, high)
    if low > 0:
        inside &= scores < _nth_largest(scores, low)
    return inside


def _nth_largest(scores: Tensor, n: int) -> Tensor:
    """(B, 1, h, w) the n-th largest score of each pixel."""
    classes = scores.shape[1]
    if n <= classes // 2:
        return scores.topk(n, 1).values[:, -1:]
    return scores.topk(classes - n + 1, 1, largest=False).values[:, -1:]


def pixels_of(ids: Tensor, num_classes: int) -> Tensor:
    """(C, B, h, w) bool maps of class ids (B, h, w)."""
    classes = torch.arange(num_classes, device=ids.device)
    return ids == classes[:, None, None, None]
