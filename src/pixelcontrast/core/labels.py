"""Label maps at the resolution of a feature map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest-neighbour resize of label maps: row i of h takes row floor(i * H / h) of H.

    Computed in integers, so exact for every ratio (513 to 129, 769 to 193) and every type;
    `torch.nn.functional.interpolate` rounds in float32 and does not take integer labels.

    Args:
        labels: (..., H, W) of any type.
        size: h and w of the result.
    """
    for dim, (old, new) in enumerate(zip(labels.shape[-2:], size, strict=True), start=-2):
        if old != new:
            source = torch.arange(new, device=labels.device) * old // new
            labels = labels.index_select(dim, source)
    return labels
