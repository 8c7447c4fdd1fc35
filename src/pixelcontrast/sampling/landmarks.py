"""A few pixels that stand for an image: each as different as possible from those before it.

Mai, Sun, Zhang and Wu, "RankMatch" (CVPR 2024), call them agents and pick them as the video
transformer Orthoformer does. They are nearly orthogonal at best.

Letters: B images, F features, N landmarks, h w feature map, P = h w pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pixelcontrast.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Pixels of each image in the order they were picked."""

    index: Tensor
    """(B, N) int64, flat pixel numbers; any number where `present` is false."""
    present: Tensor
    """(B, N) bool, false at the end of images with fewer pixels than landmarks."""


@torch.no_grad()
def select_landmarks(
    features: Tensor, count: int, first: Tensor, valid: Tensor | None = None
) -> Landmarks:
    """Farthest-point selection under the absolute cosine, all images at once.

    Pixel i + 1 is the one whose largest |cosine| with pixels 1..i is smallest; the lowest number
    wins a tie. Only that running maximum is kept, so a step costs one product with the map.
    Pixels whose features are all zero, orthogonal to everything, are taken when no others are
    left; pixels that are not valid never.

    Args:
        features: (B, F, h, w).
        count: N; fewer where an image has fewer pixels.
        first: (B,) flat number of the first landmark of each image, a valid pixel
            (`draw_pixels`).
        valid: (B, h, w) bool, the pixels that may be taken; None: all.

    Raises:
        ConfigError: `count` below 1.
    """
    if count < 1:
        raise ConfigError(f"{count} landmarks an image", fix="use at least 2")
    rows = features.flatten(2)
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    with torch.autocast(rows.device.type, enabled=False):
        inverse = torch.linalg.vector_norm(rows, dim=1).clamp_min(1e-12).reciprocal()
        # The largest |cosine| so far; 2 puts zero vectors behind all others, infinity out of reach.
        level = (inverse > 1e11).to(rows.dtype) * 2
        if valid is not None:
            level.masked_fill_(~valid.flatten(1), torch.inf)
        index = [first[:, None]]
        present = [level.gather(1, index[0]) < torch.inf]
        for _ in range(min(count, rows.shape[2]) - 1):
            last = index[-1]
            vector = rows.gather(2, last[:, None].expand(-1, rows.shape[1], -1))
            cosine = torch.bmm(vector.transpose(1, 2), rows)[:, 0].abs_()
            cosine.mul_(inverse).mul_(inverse.gather(1, last))
            level = torch.maximum(level, cosine).scatter_(1, last, torch.inf)
            nearest, at = level.min(1, keepdim=True)
            index.append(at)
            present.append(nearest < torch.inf)
    return Landmarks(torch.cat(index, 1), torch.cat(present, 1))


def draw_pixels(draws: Tensor, allowed: Tensor) -> Tensor:
    """One pixel of each image, uniformly among those allowed.

    Args:
        draws: (B,) uniform numbers in [0, 1).
        allowed: (B, h, w) bool.

    Returns:
        (B,) flat pixel numbers; 0 where nothing is allowed.
    """
    flat = allowed.flatten(1)
    place = (draws.to(torch.float64) * flat.sum(1)).long() + 1
    return (flat.cumsum(1) == place[:, None]).int().argmax(1)
