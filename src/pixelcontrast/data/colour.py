"""Colour distortion of uint8 images: parameters are drawn first, so that a view can be repeated."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelcontrast.core.errors import ConfigError

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ColourConfig:
    """How strongly colours are distorted; every default is "not at all".

    Order of application: brightness shift, then the jitter in a drawn order, then greyscale, then
    blur. The order and the meaning of the factors are those of SimCLR (Chen et al. 2020, app. A)
    and of torchvision's ColorJitter.
    """

    brightness: float = 0.0
    """Factor uniform in [1 - b, 1 + b]."""
    contrast: float = 0.0
    """Factor uniform in [1 - c, 1 + c], around the mean grey of the crop."""
    saturation: float = 0.0
    """Factor uniform in [1 - s, 1 + s], around the grey image."""
    hue: float = 0.0
    """Shift uniform in [-h, h], as a share of the colour circle; at most 0.5."""
    jitter_probability: float = 1.0
    """Chance that the four above are applied."""
    jitter_each: bool = False
    """Toss that coin for each of the four instead of once for all (PiCIE, Cho et al. 2021)."""
    jitter_ordered: bool = False
    """Always brightness, contrast, saturation, hue (PiCIE) instead of a drawn order."""
    brightness_shift: float = 0.0
    """Levels (of 255) added to all channels, uniform in [-x, x]."""
    greyscale_probability: float = 0.0
    blur_probability: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Standard deviation of the Gaussian in pixels of the crop, drawn uniformly."""

    def __post_init__(self) -> None:
        for name, most in _LIMITS.items():
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(
                    f"colour {name} = {getattr(self, name)} is impossible",
                    fix=f"use a value between 0 and {most:g}",
                )
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ConfigError(f"blur_sigma = {self.blur_sigma}", fix="use 0 < low <= high")


_LIMITS = {
    "brightness": 1.0,
    "contrast": 1.0,
    "saturation": 1.0,
    "hue": 0.5,
    "jitter_probability": 1.0,
    "brightness_shift": 255.0,
    "greyscale_probability": 1.0,
    "blur_probability": 1.0,
}

WEAK = ColourConfig(brightness_shift=10.0)
"""The only colour change of supervised training in ContrastiveSeg (Wang et al. 2021)."""

STRONG = ColourConfig(
    brightness=0.5,
    contrast=0.5,
    saturation=0.5,
    hue=0.25,
    jitter_probability=0.8,
    greyscale_probability=0.2,
    blur_probability=0.5,
)
"""The strong view of UniMatch (Yang et al. 2023) and ST++."""

SIMCLR = ColourConfig(
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.2,
    jitter_probability=0.8,
    greyscale_probability=0.2,
    blur_probability=0.5,
)
"""SimCLR (Chen et al. 2020, app. A) at colour strength 1."""

COLOUR_PRESETS = {"weak": WEAK, "strong": STRONG, "simclr": SIMCLR}


@dataclass(frozen=True, slots=True)
class ColourParams:
    """One draw; `apply_colour` with the same parameters gives the same bytes."""

    shift: float = 0.0
    """Levels added."""
    jitter: tuple[tuple[str, float], ...] = ()
    """(operation, amount) in the order of application."""
    greyscale: bool = False
    blur_sigma: float | None = None


def draw_colour(config: ColourConfig, rng: np.random.Generator) -> ColourParams:
    """Draws the parameters of one distorted view.

    The number of random numbers used does not depend on the outcome or on the strengths, so two
    configurations that differ in one strength stay comparable draw by draw.
    """
    shift = rng.uniform(-1, 1) * config.brightness_shift
    amounts = rng.uniform(-1, 1, size=4)
    coins = rng.random(4)
    order = rng.permutation(4)
    if config.jitter_ordered:
        order.sort()
    grey, blur, position = rng.random(3)
    drawn = (
        ("brightness", 1 + amounts[0] * config.brightness),
        ("contrast", 1 + amounts[1] * config.contrast),
        ("saturation", 1 + amounts[2] * config.saturation),
        ("hue", amounts[3] * config.hue),
    )
    strengths = (config.brightness, config.contrast, config.saturation, config.hue)
    if not config.jitter_each:
        coins[:] = coins[0]
    low, high = config.blur_sigma
    return ColourParams(
        shift=float(shift),
        jitter=tuple(
            (drawn[i][0], float(drawn[i][1]))
            for i in order
            if strengths[i] > 0 and coins[i] < config.jitter_probability
        ),
        greyscale=bool(grey < config.greyscale_probability),
        blur_sigma=float(low + position * (high - low)) if blur < config.blur_probability else None,
    )


def apply_colour(image: Image, params: ColourParams) -> Image:
    """The image (H, W, 3) RGB uint8 distorted by `params`; the input is left as it is."""
    out = image
    if params.shift:
        out = _levels(out, 1.0, params.shift)
    for operation, amount in params.jitter:
        out = _JITTER[operation](out, amount)
    if params.greyscale:
        out = _grey(out)
    if params.blur_sigma is not None:
        out = _blur(out, params.blur_sigma)
    return out


def _levels(image: Image, factor: float, offset: float) -> Image:
    """Every level v becomes factor * v + offset, rounded and clipped to a byte."""
    # Half the time of a look-up table: the weighted sum is vectorised.
    return np.asarray(cv2.addWeighted(image, factor, image, 0.0, offset), np.uint8)


def _grey(image: Image) -> Image:
    """The luma of ITU-R 601 in all three channels."""
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB), np.uint8)


def _brightness(image: Image, factor: float) -> Image:
    return _levels(image, factor, 0.0)


def _contrast(image: Image, factor: float) -> Image:
    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    return _levels(image, factor, (1 - factor) * mean)


def _saturation(image: Image, factor: float) -> Image:
    return np.asarray(cv2.addWeighted(image, factor, _grey(image), 1 - factor, 0.0), np.uint8)


def _hue(image: Image, shift: float) -> Image:
    # The _FULL codes spread the circle over 256 steps, so that a shift is a wrapping byte sum.
    hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL), np.uint8)
    hsv[..., 0] += np.uint8(round(shift * 256) % 256)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL), np.uint8)


def _blur(image: Image, sigma: float) -> Image:
    side = 2 * math.ceil(3 * sigma) + 1
    return np.asarray(cv2.GaussianBlur(image, (side, side), sigma), np.uint8)


_JITTER = {
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "hue": _hue,
}
