"""From dense maps to rows.

Letters: B batch, D embedding, N rows, H W labels, h w feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.labels import resize_labels


def subsample_labels(labels_BHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Label maps (B, H, W) of any type brought to (B, h, w) with the corner pixels kept.

    Row i of h takes row round(i (H - 1) / (h - 1)): an exact sub-sampling where H - 1 is a
    multiple of h - 1, as for crops of 513, features of 129 and maps of 65 pixels (Zhao et al.,
    ICCV 2021).
    """
    for dim, new in ((-2, size[0]), (-1, size[1])):
        last, steps = labels_BHW.shape[dim] - 1, max(new - 1, 1)
        at = torch.arange(new, device=labels_BHW.device)
        labels_BHW = labels_BHW.index_select(dim, (2 * at * last + steps) // (2 * steps))
    return labels_BHW


def as_rows(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Rows (N, D), their labels (N,) and the image of each row (N,), from maps or from rows.

    Args:
        embeddings: (B, D, h, w) or (N, D).
        labels: (B, H, W), resized to (h, w) by nearest pixel, or (N,).

    Returns:
        Rows, labels and image numbers; the last is None for input that is rows already.

    Raises:
        ConfigError: the two do not belong together.
    """
    if embeddings.dim() == 2 and labels.dim() == 1:
        return embeddings, labels, None
    if embeddings.dim() != 4 or labels.dim() != 3 or len(embeddings) != len(labels):
        raise ConfigError(
            f"embeddings {tuple(embeddings.shape)} and labels {tuple(labels.shape)} do not fit",
            fix="pass maps (B, D, h, w) with labels (B, H, W), or rows (N, D) with labels (N,)",
        )
    batch, _, height, width = embeddings.shape
    rows = embeddings.permute(0, 2, 3, 1).flatten(0, 2)
    images = torch.arange(batch, device=embeddings.device).repeat_interleave(height * width)
    return rows, resize_labels(labels, (height, width)).reshape(-1), images
