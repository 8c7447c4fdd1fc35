"""Which pixels lie near a boundary of the ground truth, for scores that count only those."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor


def near_boundary(target: Tensor, distance: float) -> Tensor:
    """Pixels with a pixel of another label within `distance`.

    Distances are Euclidean, between pixel centres: 1 marks both pixels beside each edge, 3 a band
    of three pixels on either side. Unlabelled pixels count as a region of their own, so that
    objects with a drawn void outline (PASCAL VOC) have a boundary, too; the image border is none.

    Args:
        target: (B, H, W) or (H, W) labels below 2^15, any integer type.
        distance: tau_B in pixels, at least 1.

    Returns:
        bool, of the shape and on the device of `target`.

    Raises:
        ValueError: a distance below 1, which no pixel can have.
    """
    if not distance >= 1:
        raise ValueError(f"pixels have no neighbour nearer than 1 pixel, got distance {distance}")
    reach = int(distance)
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disk = (y**2 + x**2 <= distance**2).astype(np.uint8)
    maps = target.cpu().numpy().astype(np.int16).reshape(-1, *target.shape[-2:])
    # A disk holds one label only if its largest and its smallest label are the same.
    mixed = [cv2.dilate(labels, disk) != cv2.erode(labels, disk) for labels in maps]
    return torch.from_numpy(np.stack(mixed)).reshape(target.shape).to(target.device)
