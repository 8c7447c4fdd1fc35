"""Two views of an image that differ in colour, and in one geometric change of known place.

Cho et al., "PiCIE: Unsupervised Semantic Segmentation using Invariance and Equivariance in
Clustering", CVPR 2021 (arXiv 2103.17070), section 3.3.

Both views have colours of their own and share one crop and flip. View 1 shows the crop itself. View
2 shows the whole image: the crop is cut from its feature map (`crop_features`), which then covers
the same scene points as that of view 1. The box is drawn in whole cells of the feature map and
enlarged to pixels, so that both crops agree exactly.

Every draw depends on (seed, epoch, image id, purpose) alone: clustering, labelling and training of
an epoch see the same two views, whatever the workers, the batches and the processes.
Letters: B batch, F features, H W image, h w feature map.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.seeding import seed_for
from pixelcontrast.data.colour import ColourConfig, Image, apply_colour, draw_colour
from pixelcontrast.data.views import Geometry, Size, warp_image


@dataclass(frozen=True, slots=True)
class PairConfig:
    """How the two views differ in place; their colours follow the section `strong`."""

    share: tuple[float, float] = (0.5, 1.0)
    """Range of the side of the crop, as a share of the image's; uniform (released code)."""
    flip: float = 0.5
    """Probability of mirroring left and right (released code)."""
    enlarge: float = 2.0
    """Size at which crop and colours are applied, relative to the views (released code: 640 for
    views of 320). Below 1 / share the crop of view 1 is blown up."""

    def __post_init__(self) -> None:
        if not 0 < self.share[0] <= self.share[1] <= 1:
            raise ConfigError(
                f"a crop cannot have {self.share} of the image's side",
                where="method.views.share",
                fix="use 0 < low <= high <= 1",
            )
        if not 0 <= self.flip <= 1:
            raise ConfigError(
                f"{self.flip} is no probability", where="method.views.flip", fix="use 0 to 1"
            )
        if not self.enlarge > 0:
            raise ConfigError(
                f"views.enlarge = {self.enlarge}", where="method.views.enlarge", fix="use 1 or 2"
            )


PLAIN = PairConfig(share=(1.0, 1.0), flip=0.0, enlarge=1.0)
"""The image as it is."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """What a stream of pairs shows."""

    config: PairConfig = PairConfig()
    grid: Size = (1, 1)
    """(h, w) of the network's feature map."""
    second: bool = True
    """Whether view 2 is made; the baseline MDC has view 1 alone."""


@dataclass(frozen=True, slots=True)
class Box:
    """The geometric change, in cells of the feature map."""

    top: int
    left: int
    height: int
    width: int
    flip: bool

    def row(self) -> tuple[int, int, int, int, int]:
        """Plain numbers, in the order of `Batch.grid_box`."""
        return self.top, self.left, self.height, self.width, int(self.flip)


def place_box(
    grid: Size, share: float, offset: tuple[float, float], flip_draw: float, flip: float = 0.5
) -> Box:
    """The crop of given draws: `share` of each side, `offset` of the free rows and columns."""
    height, width = (max(1, int(side * share)) for side in grid)
    top, left = (
        round((side - size) * at)
        for side, size, at in zip(grid, (height, width), offset, strict=True)
    )
    return Box(top, left, height, width, flip_draw < flip)


def draw_box(pairing: Pairing, seed: int, epoch: int, image: str) -> Box:
    """The geometric change of an image in an epoch, shared by both views."""
    rng = np.random.default_rng(seed_for(seed, "pair", epoch, image, "geometry"))
    side, row, column, flip = rng.random(4)
    low, high = pairing.config.share
    return place_box(
        pairing.grid, low + side * (high - low), (row, column), flip, pairing.config.flip
    )


def make_pair(
    pixels: Image,
    pairing: Pairing,
    size: Size,
    colour: ColourConfig | None,
    seed: int,
    epoch: int,
    image: str,
) -> tuple[Image, Image | None, Box]:
    """Both views of an image (H, W, 3), each of `size`, and the crop between them.

    Args:
        pixels: the image; the largest middle part of the views' shape is used.
        pairing: crop and flip, and the grid of the features.
        size: (H, W) of a view.
        colour: the distortion, drawn for each view; None: none.
        seed: seed of the run.
        epoch: views are drawn anew in each.
        image: the image's id.
    """
    cell = cell_size(pairing, size)
    base = middle(pixels, (pairing.grid[0] * cell[0], pairing.grid[1] * cell[1]))
    box = draw_box(pairing, seed, epoch, image)

    def coloured(view: int) -> Image:
        if colour is None:
            return base
        rng = np.random.default_rng(seed_for(seed, "pair", epoch, image, f"colour {view}"))
        return apply_colour(base, draw_colour(colour, rng))

    part = coloured(1)[
        box.top * cell[0] : (box.top + box.height) * cell[0],
        box.left * cell[1] : (box.left + box.width) * cell[1],
    ]
    first = resize(part, size)
    if box.flip:
        first = first[:, ::-1]
    second = resize(coloured(2), size) if pairing.second else None
    return np.ascontiguousarray(first), second, box


def cell_size(pairing: Pairing, size: Size) -> Size:
    """(height, width) in pixels of a cell of the feature map, at the size where crops are cut."""
    rows, columns = (
        max(1, round(pairing.config.enlarge * side / cells))
        for side, cells in zip(size, pairing.grid, strict=True)
    )
    return rows, columns


def middle(pixels: Image, size: Size) -> Image:
    """The largest middle part of an image (H, W, 3) that has the shape of `size`, at that size."""
    source = (pixels.shape[0], pixels.shape[1])
    zoom = max(size[0] / source[0], size[1] / source[1])
    rows, columns = (
        max(wanted, round(side * zoom)) for side, wanted in zip(source, size, strict=True)
    )
    geometry = Geometry(
        source, (rows, columns), size, (rows - size[0]) // 2, (columns - size[1]) // 2
    )
    return warp_image(pixels, geometry, (0, 0, 0))


def resize(pixels: Image, size: Size) -> Image:
    """Bilinear, with cell centres at half pixels (`align_corners=False`), without low-pass."""
    if pixels.shape[:2] == size:
        return pixels
    resized = cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


def crop_features(features: Tensor, boxes: Tensor, size: Size | None = None) -> Tensor:
    """Cuts boxes out of maps, resizes them bilinearly and mirrors them: G of PiCIE's view 2.

    Equals cutting each map and `interpolate(..., align_corners=False)`: nothing outside the box
    is seen, unlike with `replay_on_features`. It is two matrix products, whose gradient is the
    same on every run.

    Args:
        features: (B, F, h, w).
        boxes: (B, 5) integers (top, left, height, width, flip).
        size: of the result; that of the maps by default.

    Returns:
        (B, F, *size) in float32 (float64 for float64).
    """
    rows, columns = size or (features.shape[2], features.shape[3])
    wide = torch.promote_types(features.dtype, torch.float32)
    top, left, height, width, flip = boxes.to(features.device).unbind(1)
    with torch.autocast(features.device.type, enabled=False):
        down = _interpolation(top, height, torch.zeros_like(flip), rows, features.shape[2], wide)
        across = _interpolation(left, width, flip, columns, features.shape[3], wide)
        return down[:, None] @ features.to(wide) @ across[:, None].mT


def _interpolation(
    start: Tensor, length: Tensor, flip: Tensor, wanted: int, cells: int, dtype: torch.dtype
) -> Tensor:
    """(B, wanted, cells) weights that resize `length` cells from `start` on to `wanted` cells."""
    at = torch.arange(wanted, device=start.device, dtype=dtype)
    at = torch.where(flip[:, None] > 0, wanted - 1 - at, at)
    span = length[:, None].to(dtype)
    place = ((at + 0.5) * span / wanted - 0.5).clamp_min(0).minimum(span - 1) + start[:, None]
    distance = place[:, :, None] - torch.arange(cells, device=start.device, dtype=dtype)
    return (1 - distance.abs()).clamp_min(0)
