"""Region embeddings: one vector per class and image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from pixelcontrast.core.class_sums import class_sums

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class RegionSample:
    """A vector for every (image, class) pair, whether the class occurs or not: M = B * C rows."""

    vectors: Tensor
    """(M, D) unit length; zero where the class does not occur."""
    labels: Tensor
    """(M,) int64 class; -1 where it does not occur."""
    image: Tensor
    """(M,) int64 number of the image within the batch."""
    pixels: Tensor
    """(M,) int64 number of pixels behind the vector."""


def region_means(
    embedding: Tensor, labels: Tensor, *, num_classes: int, ignore_index: int = 255
) -> RegionSample:
    """The mean embedding of each class in each image, brought back to unit length.

    The region embeddings of Wang et al. (ICCV 2021), computed for all pairs in one product.

    Args:
        embedding: (B, D, h, w) or (B, D, P), unit length over D.
        labels: (B, h, w) or (B, P) class ids on the same grid, of any integer type.
        num_classes: C.
        ignore_index: the label that belongs to no region.
    """
    images = labels.shape[0]
    label = labels.flatten(1).long()
    label = torch.where(label == ignore_index, -1, label)
    sums, pixels = class_sums(embedding.flatten(2).mT, label, num_classes)
    pair = torch.arange(images * num_classes, device=labels.device)
    return RegionSample(
        vectors=F.normalize(sums.flatten(0, 1), dim=1),
        labels=torch.where(pixels.flatten() > 0, pair % num_classes, -1),
        image=pair // num_classes,
        pixels=pixels.flatten(),
    )
