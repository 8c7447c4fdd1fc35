"""Negatives near the edge of wrongly predicted regions, and the distances that find them.

Sung et al., "Contextrast: Contextual Contrastive Learning for Semantic Segmentation" (CVPR 2024),
boundary-aware negative sampling (BANE).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from pixelcontrast.core.errors import unknown_name

if TYPE_CHECKING:
    from torch import Tensor

BaneError = Literal["false_positive", "literal", "other_class_errors"]

LOTTERY_BITS = 20
"""Bits of a tie-breaking number: two of a million pixels at one distance rarely draw the same."""
TILE_ELEMENTS = 1 << 22
"""Candidates of the column pass held at once; with what their minimum takes, below 60 MB."""


@torch.no_grad()
def boundary_negatives(
    labels: Tensor,
    predictions: Tensor,
    lottery: Tensor,
    *,
    num_classes: int,
    ratio: float = 0.5,
    error: BaneError = "false_positive",
) -> Tensor:
    """Which pixels are negatives of which class: the errors nearest to the edge of their region.

    For every image and class there is a region of wrong predictions; of its pixels the share
    `ratio` with the smallest Euclidean distance to a pixel outside the region is taken. What
    belongs to the region of class n:

    * "false_positive": pixels predicted as n that are of another class. They look like n and
      belong elsewhere, so pushing them away from n is right for both classes.
    * "literal": pixels of class n predicted as another, as equation 13 of the authors' later
      restatement prints it; they are positives of n as well.
    * "other_class_errors": pixels of all classes but n that are predicted wrongly, whatever the
      prediction. These regions overlap, so there is one distance map for each class.

    Args:
        labels: (B, h, w) class ids; values outside [0, C) are ignored pixels, which are in no
            region and count as outside.
        predictions: (B, h, w) predicted class ids.
        lottery: (B, h, w) random integers in [0, 2**LOTTERY_BITS), which choose among pixels at
            the same distance.
        num_classes: C.
        ratio: K_s, share of a region that is kept, rounded up; 0.5 in the paper.
        error: what a region is.

    Returns:
        (B, C, h, w) bool.

    Raises:
        ConfigError: an unknown kind of error.
    """
    label, prediction = labels.long(), predictions.long()
    wrong = (label >= 0) & (label < num_classes) & (label != prediction)
    classes = torch.arange(num_classes, device=labels.device)[:, None, None]
    if error == "other_class_errors":
        inside = wrong[:, None] & (label[:, None] != classes)
        regions = torch.where(inside, 0, -1).flatten(0, 1)
        tickets = lottery[:, None].expand_as(inside).flatten(0, 1)
        return nearest_to_edge(regions, tickets, ratio=ratio, num_regions=1).view_as(inside)
    if error not in ("false_positive", "literal"):
        raise unknown_name("error map", error, ("false_positive", "literal", "other_class_errors"))
    regions = torch.where(wrong, prediction if error == "false_positive" else label, -1)
    kept = nearest_to_edge(regions, lottery, ratio=ratio, num_regions=num_classes)
    return (regions[:, None] == classes) & kept[:, None]


def nearest_to_edge(regions: Tensor, lottery: Tensor, *, ratio: float, num_regions: int) -> Tensor:
    """The pixels of every region of every image that lie nearest to its edge.

    One sort over all pixels, by image, region, distance and lottery number.

    Args:
        regions: (B, h, w) int64 region of each pixel in [0, num_regions); -1: none.
        lottery: (B, h, w) integers in [0, 2**LOTTERY_BITS) that break ties.
        ratio: share of a region that is kept, rounded up.
        num_regions: number of different regions in an image.

    Returns:
        (B, h, w) bool.
    """
    images, height, width = regions.shape
    groups, span = images * num_regions, _far(height, width) ** 2 + 1
    image = torch.arange(images, device=regions.device)[:, None, None]
    group = torch.where(regions >= 0, image * num_regions + regions, groups)
    distance = _squared_distance(regions).long()
    key = ((group * span + distance) << LOTTERY_BITS) + lottery
    ordered, order = key.flatten().sort()
    borders = torch.arange(groups + 1, device=key.device) * (span << LOTTERY_BITS)
    starts = torch.searchsorted(ordered, borders)
    # Rounding up, for which 0.3 * 10 must not be 3.0000000000000004.
    quota = (starts.diff().double() * ratio - 1e-6).ceil().long()
    # Row r of the sorted pixels is kept if it lies in the first part of its group.
    row = torch.arange(order.numel(), device=key.device)
    own = (ordered // (span << LOTTERY_BITS)).clamp(max=groups - 1)
    first = (row < starts[own] + quota[own]) & (row < starts[-1])
    return torch.empty_like(first).scatter_(0, order, first).view_as(regions)


def label_distance(labels: Tensor) -> Tensor:
    """Distance of every pixel to the nearest pixel of its image that has another label.

    Regions of different labels are disjoint, so this one map holds the Euclidean distance
    transforms of all of them. A row pass takes the distance to either end of a run of equal
    labels; a column pass takes `min over r of (u - r)^2 + (0 if the label differs, else row^2)`.
    Both are exact. The border of the image is no edge.

    Args:
        labels: (B, h, w) integers.

    Returns:
        (B, h, w) float32 in pixels; infinite where the image has one label only.
    """
    far = _far(*labels.shape[-2:])
    squared = _squared_distance(labels)
    return squared.float().sqrt().masked_fill(squared >= far**2, torch.inf)


def _far(height: int, width: int) -> int:
    """A length above every distance in a map of this size."""
    return height + width


def _squared_distance(labels: Tensor) -> Tensor:
    """(B, h, w) int32 squared distances, `_far` squared where there is no other label."""
    images, height, width = labels.shape
    far = _far(height, width)
    to_left = _to_other_label_on_the_left(labels, far)
    to_right = _to_other_label_on_the_left(labels.flip(-1), far).flip(-1)
    along_row = torch.minimum(to_left, to_right).square()
    row = torch.arange(height, device=labels.device, dtype=torch.int32)
    best = []
    tile = max(1, TILE_ELEMENTS // max(1, images * height * width))
    for start in range(0, height, tile):
        part = slice(start, start + tile)
        same = labels[:, part, None] == labels[:, None]
        candidate = along_row[:, None] * same
        candidate += (row[part, None] - row).square()[:, :, None]
        best.append(candidate.amin(2))
    return torch.cat(best, 1)


def _to_other_label_on_the_left(labels: Tensor, far: int) -> Tensor:
    """(B, h, w) int32 steps to the nearest pixel to the left with another label, or `far`."""
    column = torch.arange(labels.shape[-1], device=labels.device, dtype=torch.int32)
    begins = torch.where(labels[..., 1:] != labels[..., :-1], column[1:], 0)
    begin = F.pad(begins, (1, 0)).cummax(-1).values
    return torch.where(begin > 0, column - begin + 1, far)
