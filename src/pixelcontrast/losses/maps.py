"""From dense maps to rows.

Letters: B batch, D embedding, N rows, H W labels, h w feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pixelcontrast.core.errors import ConfigError


def resize_labels(
    labels_BHW: Tensor, size: tuple[int, int], *, align_corners: bool = False
) -> Tensor:
    """Label maps (B, H, W) brought to (B, h, w) by picking the nearest pixel, any integer type.

    Args:
        labels_BHW: class ids.
        size: (h, w).
        align_corners: False takes row floor(i H / h) like PyTorch's nearest mode; True takes row
            round(i (H - 1) / (h - 1)), an exact sub-sampling where (H - 1) is a multiple of
            (h - 1), as for crops of 513 or 129 and maps of 65 pixels.
    """
    if labels_BHW.shape[-2:] == size:
        return labels_BHW
    rows, columns = (
        _nearest(old, new, align_corners, labels_BHW.device)
        for old, new in zip(labels_BHW.shape[-2:], size, strict=True)
    )
    return labels_BHW[:, rows[:, None], columns]


def _nearest(old: int, new: int, align_corners: bool, device: torch.device) -> Tensor:
    at = torch.arange(new, device=device)
    if not align_corners:
        return at * old // new
    # round(i (old - 1) / (new - 1)) in whole numbers, halves up
    step = max(new - 1, 1)
    return (2 * at * (old - 1) + step) // (2 * step)


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
