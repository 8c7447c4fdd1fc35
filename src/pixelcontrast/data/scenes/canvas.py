"""A camera in a street, and a canvas that is painted from far to near."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]

OVERSAMPLING = 2
"""The canvas is this much finer than the image, so that edges in the image are smooth."""

_SHIFT = 4
_SUBPIXEL = 1 << _SHIFT


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera that looks along the street. Metres: x right, y up, z forward."""

    x: float
    """Position across the street."""
    height: float
    """Above the road."""
    focal: float
    """Focal length in canvas pixels."""
    centre: tuple[float, float]
    """Vanishing point in canvas pixels (x, y)."""
    roll: float
    """Tilt in radians."""

    def project(self, points: ArrayLike) -> Floats:
        """Canvas pixels (..., 2) of points (..., 3) in front of the camera."""
        p = np.asarray(points, np.float32)
        per_metre = self.focal / p[..., 2]
        u = per_metre * (p[..., 0] - self.x)
        v = per_metre * (self.height - p[..., 1])
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        result = np.empty((*u.shape, 2), np.float32)
        result[..., 0] = self.centre[0] + cos * u - sin * v
        result[..., 1] = self.centre[1] + sin * u + cos * v
        return result

    def scale(self, z: float) -> float:
        """Pixels of one metre at distance `z`."""
        return self.focal / z


@dataclass(slots=True)
class Canvas:
    """Picture and labels, painted together."""

    image: Floats
    """(H, W, 3) RGB, 0..255."""
    mask: NDArray[np.uint8]
    """(H, W) class ids."""
    grain: Floats
    """(H, W) fine noise, about -1..1."""
    blotch: Floats
    """(H, W) noise with large spots, about -1..1."""
    haze: Floats
    """(3,) colour that distance turns into."""
    visibility: float
    """Metres after which 63 % of a colour is haze."""
    shadow: NDArray[np.uint8] = field(init=False)
    """(H, W) 255 where the ground lies in shadow."""

    def __post_init__(self) -> None:
        self.shadow = np.zeros_like(self.mask)

    @classmethod
    def blank(
        cls, height: int, width: int, rng: np.random.Generator, haze: ArrayLike, visibility: float
    ) -> Canvas:
        """An empty canvas with its own noise fields."""
        grain = rng.random((height, width), np.float32) * 2 - 1
        rough = rng.random((height // 12 + 2, width // 12 + 2), np.float32) * 2 - 1
        finer = rng.random((height // 4 + 2, width // 4 + 2), np.float32) * 2 - 1
        blotch = 0.6 * cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
        blotch += 0.5 * cv2.resize(finer, (width, height), interpolation=cv2.INTER_LINEAR)
        return cls(
            image=np.zeros((height, width, 3), np.float32),
            mask=np.zeros((height, width), np.uint8),
            grain=grain,
            blotch=blotch.astype(np.float32),
            haze=np.asarray(haze, np.float32),
            visibility=visibility,
        )

    def fill(
        self,
        polygons: Floats,
        colour: ArrayLike,
        label: int,
        *,
        depth: float = 0.0,
        grain: float = 0.0,
        blotch: float = 0.0,
    ) -> None:
        """Paint a polygon (N, 2), or several (K, N, 2), in one colour.

        Args:
            polygons: corners in canvas pixels; several without noise must not overlap.
            colour: RGB before haze.
            label: class id.
            depth: distance in metres, for the haze.
            grain: relative strength of the fine noise.
            blotch: relative strength of the spots.
        """
        fixed = np.rint(polygons * _SUBPIXEL).astype(np.int32)
        corners = list(fixed) if fixed.ndim == 3 else [fixed]
        tint = self.hazy(colour, depth)
        if not (grain or blotch):
            cv2.fillPoly(self.image, corners, tint.tolist(), cv2.LINE_8, _SHIFT)
            cv2.fillPoly(self.mask, corners, label, cv2.LINE_8, _SHIFT)
            return
        box = self._box(fixed)
        if box is None:
            return
        stencil = np.zeros(self.mask[box].shape, np.uint8)
        offset = (-box[1].start << _SHIFT, -box[0].start << _SHIFT)
        for shape in corners:
            cv2.fillPoly(stencil, [shape], 255, cv2.LINE_8, _SHIFT, offset)
        fade = math.exp(-depth / self.visibility)
        tone = self.grain[box] * (fade * grain)
        if blotch:
            tone += self.blotch[box] * (fade * blotch)
        tone += 1
        cv2.copyTo(tone[:, :, None] * tint, stencil, self.image[box])
        cv2.copyTo(np.full_like(stencil, label), stencil, self.mask[box])

    def _box(self, fixed: NDArray[np.int32]) -> tuple[slice, slice] | None:
        """The part of the canvas that holds the corners, None when it is empty."""
        height, width = self.mask.shape
        left, top, across, down = cv2.boundingRect(fixed.reshape(-1, 2))
        x0, y0 = max(0, (left >> _SHIFT) - 1), max(0, (top >> _SHIFT) - 1)
        x1 = min(width, (left + across >> _SHIFT) + 2)
        y1 = min(height, (top + down >> _SHIFT) + 2)
        return np.s_[y0:y1, x0:x1] if x1 > x0 and y1 > y0 else None

    def sees(self, left: float, right: float) -> bool:
        """Whether anything between two canvas columns is in the picture."""
        return right > 0 and left < self.mask.shape[1]

    def hazy(self, colour: ArrayLike, depth: float) -> Floats:
        """A colour as it looks from `depth` metres away."""
        keep = math.exp(-depth / self.visibility)
        return np.asarray(colour, np.float32) * keep + self.haze * (1 - keep)

    def add_shadow(self, polygon: Floats) -> None:
        """Remember that the ground inside `polygon` lies in shadow."""
        cv2.fillPoly(
            self.shadow, [np.rint(polygon * _SUBPIXEL).astype(np.int32)], 255, cv2.LINE_8, _SHIFT
        )

    def cast_shadows(self, strength: float) -> None:
        """Darken what `add_shadow` has collected by the share `strength`."""
        soft = cv2.blur(self.shadow, (3, 3)).astype(np.float32) * (strength / 255)
        self.image *= (1 - soft)[:, :, None]


def disc(centre: ArrayLike, radius: ArrayLike, corners: int = 14) -> Floats:
    """Ellipses (..., 2) as polygons (..., corners, 2)."""
    angle = np.arange(corners, dtype=np.float32) * np.float32(2 * np.pi / corners)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    middle, reach = np.asarray(centre, np.float32), np.asarray(radius, np.float32)
    shape: Floats = (middle[..., None, :] + ring * reach[..., None, :]).astype(np.float32)
    return shape
