"""Weather, sun and the camera's own faults."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelcontrast.data.scenes.canvas import Floats


@dataclass(frozen=True, slots=True)
class Light:
    """Everything about a scene that is not a thing in it."""

    zenith: Floats
    """(3,) RGB of the sky above."""
    haze: Floats
    """(3,) RGB of the sky at the horizon and of distant things."""
    visibility: float
    """Metres; see `Canvas.visibility`."""
    clouds: float
    """Contrast of the clouds, 0..1."""
    sun: int
    """Side the sun is on: -1 left, 1 right."""
    shadow: float
    """How much darker shadows are, 0..1."""
    gain: Floats
    """(3,) exposure and colour temperature."""
    noise: float
    """Standard deviation of the sensor noise, of 255."""
    blur: float
    """Standard deviation of the lens blur, image pixels."""
    rain: bool
    lamps: bool
    """Whether windows and headlights are lit."""


#      zenith, horizon, visibility, clouds, shadow, exposure, warmth
_WEATHER = {
    "clear": ((86, 140, 205), (196, 214, 228), 190.0, 0.60, 0.45, 1.10, 1.03),
    "overcast": ((164, 170, 178), (204, 206, 208), 130.0, 0.30, 0.12, 1.02, 0.99),
    "evening": ((108, 112, 158), (244, 188, 136), 150.0, 0.45, 0.35, 0.94, 1.10),
    "fog": ((196, 199, 202), (206, 208, 209), 34.0, 0.05, 0.05, 1.00, 1.00),
    "rain": ((128, 136, 146), (172, 178, 184), 75.0, 0.35, 0.08, 0.86, 0.96),
    "night": ((24, 28, 48), (58, 56, 66), 110.0, 0.20, 0.10, 0.62, 1.02),
}
_USUAL = ((0.46, 0.24, 0.15, 0.06, 0.07, 0.02), (0.22, 0.20, 0.18, 0.14, 0.14, 0.12))


def draw_light(rng: np.random.Generator, hard: bool) -> Light:
    """A random weather; `hard` makes fog, rain and night common and the camera worse."""
    kinds = list(_WEATHER)
    kind = kinds[int(rng.choice(len(kinds), p=_USUAL[int(hard)]))]
    zenith, horizon, visibility, clouds, shadow, exposure, warmth = _WEATHER[kind]
    spread = 2.0 if hard else 1.0
    tint = rng.normal(0, 7 * spread, 3)
    warm = warmth * np.exp(rng.normal(0, 0.03 * spread))
    bright = exposure * np.exp(rng.normal(0, 0.10 * spread))
    return Light(
        zenith=np.clip(zenith + tint, 8, 245).astype(np.float32),
        haze=np.clip(horizon + tint, 8, 250).astype(np.float32),
        visibility=visibility * float(rng.uniform(0.7, 1.3)),
        clouds=clouds,
        sun=int(rng.choice((-1, 1))),
        shadow=shadow * float(rng.uniform(0.8, 1.25)),
        gain=(bright * np.array([warm, 1.0, 1 / warm])).astype(np.float32),
        noise=float(rng.uniform(1.0, 3.0) * spread),
        blur=float(rng.uniform(0, 0.35) * spread),
        rain=kind == "rain",
        lamps=kind in {"night", "evening"},
    )


def develop(canvas: Floats, light: Light, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The photograph of a picture (H, W, 3): exposure, vignette, rain, blur, sensor noise."""
    height, width = canvas.shape[:2]
    image = canvas * light.gain
    across = np.linspace(-1, 1, width, dtype=np.float32)
    down = np.linspace(-1, 1, height, dtype=np.float32)
    image *= 1 - 0.10 * (across[None, :, None] ** 2 + down[:, None, None] ** 2)
    if light.rain:
        _rain(image, rng)
    if light.blur > 0.15:
        cv2.GaussianBlur(image, (0, 0), light.blur, dst=image)
    image += light.noise * rng.standard_normal((height, width, 1), np.float32)
    image += 0.6 * light.noise * rng.standard_normal(image.shape, np.float32)
    photograph: NDArray[np.uint8] = np.clip(image, 0, 255).astype(np.uint8)
    return photograph


def _rain(image: Floats, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    streaks = np.zeros((height, width), np.float32)
    starts = rng.uniform((0, 0), (width, height), (width // 3, 2))
    length = rng.uniform(0.03, 0.09, len(starts)) * height
    for (x, y), reach in zip(starts, length, strict=True):
        tip = (round(x - 0.2 * reach), round(y + reach))
        cv2.line(streaks, (round(x), round(y)), tip, 1.0)
    image += (0.16 * streaks[:, :, None]) * (225 - image)
