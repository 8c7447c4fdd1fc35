"""Class scores at image resolution, a band of rows at a time.

The full-size score map (B, C, H, W) is the largest tensor of an evaluation: 152 MiB for one
1024 x 2048 image of 19 classes. Labels need only one band of it at a time, and a band that stays in
the cache is also faster to make.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator

CPU_TILE_BYTES = 2 * 2**20
"""Bytes of one band on the CPU, where a band is best kept in the cache."""
DEVICE_TILE_BYTES = 256 * 2**20
"""Bytes of one band elsewhere: large enough to fill a GPU."""


def upsampled_rows(
    logits: Tensor, size: tuple[int, int], *, align_corners: bool = False
) -> Iterator[tuple[slice, Tensor]]:
    """Bands of `logits` upsampled bilinearly to `size`, top to bottom.

    Each band equals the same rows of `torch.nn.functional.interpolate(logits, size, ...)` up to the
    rounding of float32: columns go through that function, rows are blended in its own order of
    operations, so that most sizes come out identical to the bit.

    Args:
        logits: (B, C, h, w), any floating type; bands are float32.
        size: (H, W) of the image.
        align_corners: as in `torch.nn.functional.interpolate`.

    Yields:
        The slice of rows and the band (B, C, rows, W).
    """
    height, width = size
    batch, classes, rows_in = logits.shape[:3]
    step = _rows_per_tile(batch * classes * width, logits.device)
    low, high, weight = _row_blend(rows_in, height, align_corners, logits.device)
    # The few numbers that decide which input rows a band needs are wanted on the host.
    low_host, high_host = low.tolist(), high.tolist()
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        first, last = low_host[rows.start], high_host[rows.stop - 1] + 1
        source = logits[:, :, first:last].float()
        wide = F.interpolate(
            source, (last - first, width), mode="bilinear", align_corners=align_corners
        )
        below = weight[rows, None]
        band = wide.index_select(2, high[rows] - first).mul_(below)
        yield rows, band.addcmul_(wide.index_select(2, low[rows] - first), 1 - below)


def labels_from_logits(
    logits: Tensor, size: tuple[int, int], *, align_corners: bool = False
) -> Tensor:
    """The class of each pixel, (B, H, W), as `interpolate(logits, size).argmax(1)` would give.

    Args:
        logits: (B, C, h, w).
        size: (H, W) of the image.
        align_corners: as in `torch.nn.functional.interpolate`.
    """
    labels = logits.new_empty((len(logits), *size), dtype=label_dtype(logits.shape[1]))
    for rows, band in upsampled_rows(logits, size, align_corners=align_corners):
        labels[:, rows] = best_class(band)[1]
    return labels


def label_dtype(num_classes: int) -> torch.dtype:
    """The smallest type for class ids: uint8 up to 255 classes, else int16."""
    return torch.uint8 if num_classes <= 255 else torch.int16


def row_bands(scores: Tensor) -> Iterator[slice]:
    """Slices over the rows of a (B, C, H, W) tensor, each of about one tile."""
    batch, classes, height, width = scores.shape
    step = _rows_per_tile(batch * classes * width, scores.device)
    for start in range(0, height, step):
        yield slice(start, min(start + step, height))


def best_class(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The highest score of each pixel and its class, the first one where several are equal.

    Args:
        scores: (B, C, H, W).

    Returns:
        The scores (B, H, W) and the classes (B, H, W), uint8 up to 255 classes, else int16.
    """
    small = label_dtype(scores.shape[1])
    if scores.device.type != "cpu":
        best, index = scores.max(dim=1)
        return best, index.to(small)
    # A running maximum with a one-byte index: torch.argmax over channel planes is 3 times slower.
    best = scores[:, 0].clone()
    index = torch.zeros(best.shape, dtype=small)
    for c in range(1, scores.shape[1]):
        plane = scores[:, c]
        index.masked_fill_(plane > best, c)
        torch.maximum(best, plane, out=best)
    return best, index


def _rows_per_tile(row_values: int, device: torch.device) -> int:
    budget = CPU_TILE_BYTES if device.type == "cpu" else DEVICE_TILE_BYTES
    return max(1, budget // (4 * row_values))


def _row_blend(
    rows_in: int, rows_out: int, align_corners: bool, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """For each output row: the upper and lower input row and the weight of the lower one."""
    out = torch.arange(rows_out, dtype=torch.float32)
    if align_corners:
        scale = torch.tensor(float(rows_in - 1)) / max(rows_out - 1, 1)
        position = scale * out if rows_out > 1 else torch.zeros(1)
    else:
        scale = torch.tensor(float(rows_in)) / rows_out
        position = (scale * (out + 0.5) - 0.5).clamp(min=0)
    low = position.floor().long().clamp(max=rows_in - 1)
    high = (low + 1).clamp(max=rows_in - 1)
    weight = (position - low).clamp(0, 1)
    return low.to(device), high.to(device), weight.to(device)
