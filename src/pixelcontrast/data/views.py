"""Random scale, crop and flip as one warp, with parameters that can be replayed on feature maps.

Pixel centres have integer coordinates: pixel (x, y) covers [x - 1/2, x + 1/2) x [y - 1/2, y + 1/2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.data.colour import ColourConfig, Image, apply_colour, draw_colour

Size = tuple[int, int]
"""(height, width)."""


@dataclass(frozen=True, slots=True)
class ViewConfig:
    """How a training crop is cut from an image."""

    crop: tuple[int, int] = (512, 512)
    """(height, width) of the crop."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the zoom factor; the range of DeepLab, ContrastiveSeg, U2PL and UniMatch."""
    balanced_scale: bool = False
    """Shrink and enlarge equally often, uniform on each side of 1 (U2PL); else uniform."""
    aspect: tuple[float, float] = (1.0, 1.0)
    """Range of the change of width / height; ContrastiveSeg uses (0.9, 1.1)."""
    short_side: int | None = None
    """Shorter side that zoom 1 stands for; None keeps the image's own."""
    flip: float = 0.5
    """Probability of mirroring left and right."""
    fill: tuple[int, int, int] = (124, 116, 104)
    """Colour of padding: the mean of ImageNet, which normalisation maps to about 0."""
    colour: ColourConfig | None = None
    """Colour change of the weak view."""

    def __post_init__(self) -> None:
        if min(self.crop) < 1:
            raise ConfigError(f"view.crop = {self.crop} is empty", fix="use two positive numbers")
        for name in ("scale", "aspect"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"view.{name} = {(low, high)}", fix="use 0 < low <= high")
        if self.balanced_scale and not self.scale[0] <= 1 <= self.scale[1]:
            raise ConfigError(
                f"view.balanced_scale needs 1 inside view.scale = {self.scale}",
                fix="widen view.scale or set view.balanced_scale=false",
            )
        if self.short_side is not None and self.short_side < 1:
            raise ConfigError(f"view.short_side = {self.short_side}", fix="use a positive number")
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"view.flip = {self.flip}", fix="use a probability, 0 to 1")
        if not all(0 <= level <= 255 for level in self.fill):
            raise ConfigError(f"view.fill = {self.fill}", fix="use three levels, 0 to 255")


@dataclass(frozen=True, slots=True)
class Geometry:
    """One draw of scale, crop and flip, in whole pixels, so that everything derived is exact.

    The source is resized to `scaled`; the crop shows its rows from `top` and columns from `left`
    (negative: padding before it), and is mirrored last.
    """

    source: Size
    scaled: Size
    crop: Size
    top: int
    left: int
    flip: bool = False

    def matrix(self) -> NDArray[np.float64]:
        """The (2, 3) affine map from crop to source coordinates (x, y)."""
        step_y, step_x = (a / b for a, b in zip(self.source, self.scaled, strict=True))
        first = self.left + (self.crop[1] - 1 if self.flip else 0)
        direction = -step_x if self.flip else step_x
        return np.array(
            [
                [direction, 0.0, (first + 0.5) * step_x - 0.5],
                [0.0, step_y, (self.top + 0.5) * step_y - 0.5],
            ]
        )

    def valid_box(self) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) of the photograph inside the crop, ends excluded."""
        (height, width), (rows, columns) = self.crop, self.scaled
        left, right = max(0, -self.left), min(width, columns - self.left)
        if self.flip:
            left, right = width - right, width - left
        return max(0, -self.top), min(height, rows - self.top), left, right

    def nearest(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Source row of every crop row, and source column of every crop column, of the valid box.

        It is the source pixel whose square holds the mapped centre, in integer arithmetic.
        """
        top, bottom, left, right = self.valid_box()
        rows = self.top + np.arange(top, bottom)
        columns = np.arange(left, right)
        columns = self.left + (self.crop[1] - 1 - columns if self.flip else columns)
        return (
            (2 * rows + 1) * self.source[0] // (2 * self.scaled[0]),
            (2 * columns + 1) * self.source[1] // (2 * self.scaled[1]),
        )


@dataclass(frozen=True, slots=True)
class View:
    """One crop of one image."""

    image: Image
    """(H, W, 3) RGB."""
    mask: Image | None
    """(H, W) class ids; padding holds the ignore index."""
    geometry: Geometry


def draw_geometry(size: Size, config: ViewConfig, rng: np.random.Generator) -> Geometry:
    """Draws zoom, shape, place and flip for a source of `size`.

    The place is uniform over all whole-pixel offsets; where the zoomed image is smaller than the
    crop, the place of the image inside the padding is. Always uses five random numbers.
    """
    zoom_draw, aspect_draw, flip_draw, row_draw, column_draw = rng.random(5)
    low, high = config.scale
    if config.balanced_scale:
        zoom_draw *= 2
        low, high = (low, 1.0) if zoom_draw < 1 else (1.0, high)
        zoom_draw %= 1
    zoom = low + zoom_draw * (high - low)
    if config.short_side is not None:
        zoom *= config.short_side / min(size)
    stretch = math.sqrt(config.aspect[0] + aspect_draw * (config.aspect[1] - config.aspect[0]))
    scaled = (
        max(1, math.floor(size[0] * zoom / stretch + 0.5)),
        max(1, math.floor(size[1] * zoom * stretch + 0.5)),
    )
    return Geometry(
        source=size,
        scaled=scaled,
        crop=config.crop,
        top=_place(scaled[0] - config.crop[0], row_draw),
        left=_place(scaled[1] - config.crop[1], column_draw),
        flip=bool(flip_draw < config.flip),
    )


def _place(slack: int, draw: float) -> int:
    """A whole number uniform in [0, slack], or in [slack, 0] when `slack` is negative."""
    return min(0, slack) + int(draw * (abs(slack) + 1))


def draw_view(
    image: Image,
    mask: Image | None,
    config: ViewConfig,
    rng: np.random.Generator,
    *,
    ignore_index: int = 255,
) -> View:
    """A random crop of an image (H, W, 3) and, where there is one, of its mask (H, W)."""
    geometry = draw_geometry((image.shape[0], image.shape[1]), config, rng)
    out = warp_image(image, geometry, config.fill)
    if config.colour is not None:
        out = apply_colour(out, draw_colour(config.colour, rng))
    return View(out, None if mask is None else warp_mask(mask, geometry, ignore_index), geometry)


def warp_image(image: Image, geometry: Geometry, fill: tuple[int, int, int]) -> Image:
    """The crop of an image (H, W, 3), by one bilinear warp that computes the crop's pixels only.

    Equals resizing the whole source bilinearly and cutting afterwards, up to the fixed-point
    interpolation of OpenCV (1/32 pixel). Between zoom 1 and 1/2 there is no low-pass filter, as in
    the training code of ContrastiveSeg and DeepLab: bilinear samples still touch every source
    pixel. Below zoom 1/2 they would skip pixels, so the source is first averaged over k x k blocks,
    k the whole part of the shrink factor.
    """
    top, bottom, left, right = geometry.valid_box()
    (step_x, _, x), (_, step_y, y) = geometry.matrix()
    block_y, block_x = (
        max(1, a // b) for a, b in zip(geometry.source, geometry.scaled, strict=True)
    )
    rows, step_y, y = _window(step_y, y + step_y * top, bottom - top, len(image), block_y)
    columns, step_x, x = _window(step_x, x + step_x * left, right - left, image.shape[1], block_x)
    part = image[rows, columns]
    if block_y > 1 or block_x > 1:
        part = _block_mean(part, block_y, block_x)
    inside = cv2.warpAffine(
        part,
        np.array([[step_x, 0.0, x], [0.0, step_y, y]]),
        (right - left, bottom - top),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if inside.shape[:2] == geometry.crop:
        return np.asarray(inside, np.uint8)
    out = np.empty((*geometry.crop, 3), np.uint8)
    out[:] = fill
    out[top:bottom, left:right] = inside
    return out


def _window(
    step: float, start: float, count: int, length: int, block: int
) -> tuple[slice, float, float]:
    """The pixels that `count` samples from `start` on look at, and step and start inside them.

    Cutting them out keeps coordinates small (OpenCV warps at most 32,767 pixels a side) and leaves
    the rest of a memory-mapped image on the disk. A margin of a block leaves interpolation as it
    was. The window begins at a whole block, and the new step and start count in blocks.
    """
    ends = (start, start + step * (count - 1))
    first = max(0, math.floor(min(ends) / block) - 1) * block
    last = min(length, (math.ceil(max(ends) / block) + 2) * block)
    return slice(first, last), step / block, (start - first + 0.5) / block - 0.5


def _block_mean(image: Image, rows: int, columns: int) -> Image:
    """Means over blocks of rows x columns; repeats complete the blocks at the far borders."""
    height, width = image.shape[:2]
    below, right = -height % rows, -width % columns
    if below or right:
        image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
    size = ((width + right) // columns, (height + below) // rows)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def warp_mask(mask: Image, geometry: Geometry, ignore_index: int) -> Image:
    """The crop of a mask (H, W): exact nearest neighbour, `ignore_index` outside the source."""
    rows, columns = geometry.nearest()
    top, bottom, left, right = geometry.valid_box()
    out = np.full(geometry.crop, ignore_index, np.uint8)
    out[top:bottom, left:right] = mask.take(rows, axis=0).take(columns, axis=1)
    return out


def inside_boxes(boxes: Tensor, size: Size) -> Tensor:
    """(B, H, W) bool, true inside boxes (B, 4) of (top, bottom, left, right), ends excluded."""
    rows = torch.arange(size[0], device=boxes.device)
    columns = torch.arange(size[1], device=boxes.device)
    top, bottom, left, right = (edge[:, None] for edge in boxes.unbind(1))
    in_rows = (rows >= top) & (rows < bottom)
    in_columns = (columns >= left) & (columns < right)
    return in_rows[:, :, None] & in_columns[:, None, :]


def relative_geometry(view: Tensor, other: Tensor) -> Tensor:
    """The map (B, 2, 3) from pixels of `view` to pixels of `other`.

    Both arguments (B, 2, 3) map their own crop to the source they share.
    """
    view64, other64 = view.double(), other.double()
    inverse = torch.linalg.inv_ex(other64[:, :, :2]).inverse  # without the check, which would wait
    turn = inverse @ view64[:, :, :2]
    shift = inverse @ (view64[:, :, 2:] - other64[:, :, 2:])
    return torch.cat([turn, shift], dim=2).to(view.dtype)


def replay_on_features(
    features: Tensor,
    geometry: Tensor,
    *,
    view: Size,
    other: Size,
    size: Size,
    align_corners: bool = False,
    mode: Literal["bilinear", "nearest"] = "bilinear",
) -> tuple[Tensor, Tensor]:
    """Shows a feature map of one view in the frame of another (view consistency; PiCIE's G).

    Args:
        features: (B, F, h, w) map that covers the crop `other`.
        geometry: (B, 2, 3) map from pixels of `view` to pixels of `other` (`relative_geometry`).
        view: (H, W) in pixels of the crop whose frame is wanted.
        other: (H, W) in pixels of the crop the features were computed from.
        size: (h', w') of the result, which covers `view`.
        align_corners: how cells lie on pixels: False, cell j of w covers W/w pixels; True, the
            first and last cell sit on the first and last pixel.
        mode: "nearest" for label maps.

    Returns:
        (B, F, h', w') features, zero outside, and (B, h', w') bool, true where the point lies
        inside the crop `other`.
    """
    geometry = geometry.float()
    x = _centres(size[1], view[1], align_corners, geometry)
    y = _centres(size[0], view[0], align_corners, geometry)
    x_axis, y_axis = geometry[:, :, 0, None, None], geometry[:, :, 1, None, None]
    mapped = x_axis * x + y_axis * y[:, None] + geometry[:, :, 2, None, None]
    places, insides = [], []
    for at, extent in ((mapped[:, 0], other[1]), (mapped[:, 1], other[0])):
        insides.append((at >= -0.5) & (at <= extent - 0.5))
        if align_corners:
            places.append(at * (2 / max(1, extent - 1)) - 1)
        else:
            places.append((at + 0.5) * (2 / extent) - 1)
    grid, inside = torch.stack(places, dim=-1), insides[0] & insides[1]
    out = F.grid_sample(
        features.float(), grid, mode=mode, padding_mode="border", align_corners=align_corners
    )
    return (out * inside[:, None]).to(features.dtype), inside


def _centres(cells: int, pixels: int, align_corners: bool, like: Tensor) -> Tensor:
    """Pixel coordinates of the centres of `cells` cells over `pixels` pixels."""
    at = torch.arange(cells, dtype=like.dtype, device=like.device)
    if align_corners:
        return at * ((pixels - 1) / max(1, cells - 1))
    return (at + 0.5) * (pixels / cells) - 0.5
