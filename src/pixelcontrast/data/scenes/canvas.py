"""A camera in a street, and a canvas that is painted from far to near."""

from __future__ import annotations

from collections.abc import Sequence
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
        u = self.focal * (p[..., 0] - self.x) / p[..., 2]
        v = self.focal * (self.height - p[..., 1]) / p[..., 2]
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        return np.stack(
            [self.centre[0] + cos * u - sin * v, self.centre[1] + sin * u + cos * v], axis=-1
        ).astype(np.float32)

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
        polygons: Floats | Sequence[Floats],
        colour: ArrayLike,
        label: int,
        *,
        depth: float = 0.0,
        grain: float = 0.0,
        blotch: float = 0.0,
    ) -> None:
        """Paint polygons, (N, 2) or several of them, in one colour.

        Args:
            polygons: corners in canvas pixels.
            colour: RGB before haze.
            label: class id.
            depth: distance in metres, for the haze.
            grain: relative strength of the fine noise.
            blotch: relative strength of the spots.
        """
        shapes = [polygons] if isinstance(polygons, np.ndarray) and polygons.ndim == 2 else polygons
        corners = [_fixed(shape) for shape in shapes]
        tint = self.hazy(colour, depth)
        if not (grain or blotch):
            cv2.fillPoly(self.image, corners, tint.tolist(), cv2.LINE_8, _SHIFT)
            cv2.fillPoly(self.mask, corners, label, cv2.LINE_8, _SHIFT)
            return
        stacked = np.concatenate(corners)
        height, width = self.mask.shape
        left, top = np.clip((stacked.min(axis=0) >> _SHIFT) - 1, 0, (width, height)).tolist()
        right, bottom = np.clip((stacked.max(axis=0) >> _SHIFT) + 2, 0, (width, height)).tolist()
        if right <= left or bottom <= top:
            return
        box = np.s_[top:bottom, left:right]
        stencil = np.zeros((bottom - top, right - left), np.uint8)
        moved = [shape - (left << _SHIFT, top << _SHIFT) for shape in corners]
        cv2.fillPoly(stencil, [m.astype(np.int32) for m in moved], 255, cv2.LINE_8, _SHIFT)
        fade = float(np.exp(-depth / self.visibility))
        tone = 1 + fade * (grain * self.grain[box] + blotch * self.blotch[box])
        cv2.copyTo(tone[:, :, None] * tint, stencil, self.image[box])
        self.mask[box][stencil > 0] = label

    def hazy(self, colour: ArrayLike, depth: float) -> Floats:
        """A colour as it looks from `depth` metres away."""
        keep = np.float32(np.exp(-depth / self.visibility))
        return self.haze + (np.asarray(colour, np.float32) - self.haze) * keep

    def add_shadow(self, polygon: Floats) -> None:
        """Remember that the ground inside `polygon` lies in shadow."""
        cv2.fillPoly(self.shadow, [_fixed(polygon)], 255, cv2.LINE_8, _SHIFT)

    def cast_shadows(self, strength: float) -> None:
        """Darken what `add_shadow` has collected by the share `strength`."""
        soft = cv2.blur(self.shadow, (3, 3)).astype(np.float32) * (strength / 255)
        self.image *= (1 - soft)[:, :, None]


def disc(centre: ArrayLike, radius: ArrayLike, corners: int = 14) -> Floats:
    """An ellipse as a polygon, (corners, 2)."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False, dtype=np.float32)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return np.asarray(centre, np.float32) + ring * np.asarray(radius, np.float32)


def _fixed(points: Floats) -> NDArray[np.int32]:
    # Far outside the canvas the exact place is irrelevant, but fixed-point numbers overflow.
    limited = np.clip(points, -20000, 20000)
    return np.rint(limited * _SUBPIXEL).astype(np.int32)
