"""The constants of one streamed contrast, known on the host."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from pixelcontrast.losses.tile_math import LOG2E


@dataclass(frozen=True, slots=True)
class Settings:
    """The formula in the units of the tiles."""

    scale: float
    """log2(e) / temperature."""
    negatives: bool
    """Each positive has its own denominator: itself and the negatives."""
    own_image: bool
    """Negatives come from the anchor's image alone."""
    bounded: bool
    """No similarity can overflow or vanish, so sums need no running maximum."""
    folds: int
    """How often factors 1 + v can be multiplied in pairs before a logarithm."""

    @staticmethod
    def of(
        inv_temperature: float,
        *,
        negatives: bool,
        own_image: bool,
        norms: tuple[float, float],
        keys: int,
        dtype: torch.dtype,
    ) -> Settings:
        """Settings for vectors whose greatest lengths are `norms`, and a number of `keys`.

        With |s'| <= b, Z / 2^s' lies between 2^-2b and M 2^2b for M keys; both must be finite
        and nonzero. For unit vectors in float32 that holds down to a temperature of 0.03.
        """
        scale = LOG2E * inv_temperature
        room = 1000.0 if dtype == torch.float64 else 120.0
        span = 2 * scale * norms[0] * norms[1] + math.log2(max(keys, 1)) + 1
        bounded = span < room  # false for a length that is not a number
        folds = int(math.log2(room / span)) if bounded else 0
        return Settings(scale, negatives, own_image, bounded, min(folds, 3))
