"""Puts a street together: sky, ground, what stands where, and in which order it is painted."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelcontrast.data.scenes import things
from pixelcontrast.data.scenes.canvas import OVERSAMPLING, Camera, Canvas
from pixelcontrast.data.scenes.light import develop, draw_light
from pixelcontrast.data.scenes.things import (
    BUILDING,
    PAVEMENT,
    ROAD,
    SKY,
    VEGETATION,
    VOID,
    Street,
)

_NEAR, _FAR, _END = 2.2, 95.0, 400.0
"""Metres: the first house begins, the last one ends, the ground ends."""


def render_street(
    rng: np.random.Generator, size: tuple[int, int], hard: bool
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One scene: image (H, W, 3) and class ids (H, W)."""
    height, width = size[0] * OVERSAMPLING, size[1] * OVERSAMPLING
    # Noise has its own source, so that a scene shows the same street at every size.
    (texture,) = rng.spawn(1)
    light = draw_light(rng, hard)
    half = float(rng.uniform(3.6, 6.2))
    camera = Camera(
        x=float(rng.uniform(-0.45, 0.55) * half),
        height=float(rng.uniform(1.4, 2.1)),
        focal=max(width, 1.25 * height) * float(rng.uniform(0.62, 0.95)),
        centre=(width * float(rng.normal(0.5, 0.09)), height * float(rng.uniform(0.40, 0.54))),
        roll=float(rng.normal(0, 0.018)),
    )
    canvas = Canvas.blank(height, width, texture, light.haze, light.visibility)
    street = Street(canvas, camera, light, rng, jitter=16.0 if hard else 8.0)
    walks = (float(rng.uniform(1.8, 3.8)), float(rng.uniform(1.8, 3.8)))
    _sky(street)
    _ground(street, half, walks, hard)
    _skyline(street)
    fronts, standing = _arrange(street, half, walks, hard)
    canvas.cast_shadows(light.shadow)
    for _, draw in sorted(fronts, key=lambda item: -item[0]):
        draw()
    for _, draw in sorted(standing, key=lambda item: -item[0]):
        draw()
    if rng.random() < 0.12:
        _bonnet(street)
    small = np.empty((*size, 3), np.float32)
    cv2.resize(canvas.image, size[::-1], dst=small, interpolation=cv2.INTER_AREA)
    mask = canvas.mask[OVERSAMPLING // 2 :: OVERSAMPLING, OVERSAMPLING // 2 :: OVERSAMPLING]
    return develop(small, light, texture), np.ascontiguousarray(mask)


_Drawing = tuple[float, Callable[[], None]]


def _sky(street: Street) -> None:
    canvas, light = street.canvas, street.light
    height, width = canvas.mask.shape
    canvas.mask[:] = SKY
    rows = min(height, round(street.camera.centre[1] * 1.15) + 4)
    down = np.linspace(0, rows / street.camera.centre[1], rows, dtype=np.float32)
    blend = np.clip(down, 0, 1)[:, None, None] ** 1.3
    clear = light.zenith * (1 - blend) + light.haze * blend
    rough = street.rng.random((5, 7), np.float32)
    finer = street.rng.random((14, 10), np.float32)
    cloud = cv2.resize(rough, (width, rows), interpolation=cv2.INTER_CUBIC)
    cloud = cloud + 0.5 * cv2.resize(finer, (width, rows), interpolation=cv2.INTER_CUBIC)
    cover = np.clip((cloud - 0.78) * 2.2, 0, 1)[:, :, None] * light.clouds
    bright = np.clip(light.haze * 1.12 + 8, 0, 252)
    canvas.image[:rows] = clear + cover * (bright - clear)


def _skyline(street: Street) -> None:
    """Far houses and trees that close the street."""
    rng, z = street.rng, 140.0
    x = -150.0
    while x < 150:
        width = float(rng.uniform(8, 26))
        if rng.random() < 0.65:
            top = float(rng.uniform(6, 26))
            shape = street.quad((x, 0, z), (x, top, z), (x + width, top, z), (x + width, 0, z))
            colour = street.tint(((150, 146, 144), (170, 154, 136), (128, 134, 142)))
            street.canvas.fill(shape, colour, BUILDING, depth=z * 0.7, blotch=0.1)
        else:
            crest = rng.uniform(5, 12, 6)
            points = [(x + width * i / 5, float(y), z) for i, y in enumerate(crest)]
            shape = street.quad((x, 0, z), *points, (x + width, 0, z))
            colour = street.tint(((84, 104, 70), (98, 112, 78)))
            street.canvas.fill(shape, colour, VEGETATION, depth=z * 0.6, grain=0.2, blotch=0.3)
        x += width


def _ground(street: Street, half: float, walks: tuple[float, float], hard: bool) -> None:
    rng, fill = street.rng, street.canvas.fill
    grass = street.tint(((96, 112, 62), (112, 118, 76), (126, 118, 88)))
    asphalt = street.tint(((92, 92, 96), (108, 106, 104), (78, 80, 86)))
    stone = street.tint(((146, 142, 138), (126, 124, 122), (158, 138, 124)))
    if rng.random() < (0.45 if hard else 0.15):
        stone = asphalt + rng.normal(0, 8)
    height, width = street.canvas.mask.shape
    near = 0.7 * street.camera.focal * street.camera.height / (height - street.camera.centre[1])
    horizon = street.quad((-500, 0, _END), (500, 0, _END))
    bottom = np.array([(2 * width, 2 * height), (-width, 2 * height)], np.float32)
    fill(np.concatenate([horizon, bottom]), grass, VEGETATION)
    walk = street.ground(-half - walks[0], half + walks[1], near, _END)
    fill(walk, stone, PAVEMENT)
    fill(street.ground(-half, half, near, _END), asphalt, ROAD)
    for edge in (-half, half):
        fill(street.ground(edge - 0.14, edge + 0.14, near, _END), stone * 1.14, PAVEMENT)
    _paving(street, half, walks, stone)
    _markings(street, half)
    _surface(street)


def _surface(street: Street) -> None:
    """Roughness of the ground, and haze by the distance of every pixel; the sky stays."""
    canvas, camera = street.canvas, street.camera
    height, width = canvas.mask.shape
    first = max(0, round(camera.centre[1] - abs(camera.roll) * width))
    across = np.arange(width, dtype=np.float32) - camera.centre[0]
    down = np.arange(first, height, dtype=np.float32) - camera.centre[1]
    below = down[:, None] * math.cos(camera.roll) - across * math.sin(camera.roll)
    distance = camera.focal * camera.height / np.maximum(below, 0.5)
    keep = cv2.exp(distance * np.float32(-1 / canvas.visibility))
    keep[below <= 0.5] = 1
    rough = 1 + 0.07 * (canvas.grain[first:] + canvas.blotch[first:])
    rough[below <= 0.5] = 1
    ground = canvas.image[first:]
    ground *= (rough * keep)[:, :, None]
    ground += (1 - keep)[:, :, None] * canvas.haze


def _paving(street: Street, half: float, walks: tuple[float, float], stone: np.ndarray) -> None:
    """Joints between the slabs of the pavement."""
    for left, right in ((-half - walks[0], -half - 0.14), (half + 0.14, half + walks[1])):
        for z in np.arange(3.0, 14.0, 1.2):
            joint = street.ground(left, right, z, z + 0.05)
            street.canvas.fill(joint, stone * 0.84, PAVEMENT)


def _markings(street: Street, half: float) -> None:
    rng, fill = street.rng, street.canvas.fill
    paint = street.tint(((214, 214, 208), (196, 196, 192)))
    asphalt_patch = street.tint(((74, 74, 78), (118, 116, 114)))
    for _ in range(int(rng.integers(0, 4))):
        z, x = float(rng.uniform(4, 25)), float(rng.uniform(-half, half - 1))
        patch = street.ground(x, min(half, x + rng.uniform(0.6, 2)), z, z + rng.uniform(0.8, 4))
        fill(patch, asphalt_patch, ROAD, grain=0.1)
    if rng.random() < 0.8:
        start = float(rng.uniform(1.5, 6))
        for z in np.arange(start, 80, 6.0):
            fill(street.ground(-0.09, 0.09, z, z + 3), paint, ROAD)
    if rng.random() < 0.35:
        for edge in (-half + 0.35, half - 0.35):
            fill(street.ground(edge - 0.06, edge + 0.06, 1.5, 90), paint, ROAD)
    if rng.random() < 0.22:
        z = float(rng.uniform(5, 18))
        for x in np.arange(-half + 0.4, half - 0.5, 1.0):
            fill(street.ground(x, x + 0.5, z, z + 3), paint, ROAD, grain=0.05)


def _arrange(
    street: Street, half: float, walks: tuple[float, float], hard: bool
) -> tuple[list[_Drawing], list[_Drawing]]:
    """Where everything stands: house fronts, and the things between them and the road."""
    rng = street.rng
    fronts: list[_Drawing] = []
    standing: list[_Drawing] = []
    leafy = float(rng.choice((0.1, 0.5, 0.9)))
    parked = float(rng.choice((0.0, 0.3, 0.7)))
    crowd = float(rng.choice((0.0, 0.04, 0.10, 0.2), p=(0.3, 0.3, 0.25, 0.15)))
    for side, walk in zip((-1, 1), walks, strict=True):
        wall = side * (half + walk)
        kind = rng.choice(("facades", "houses", "park"), p=(0.55, 0.27, 0.18))
        _line_street(street, side, wall, str(kind), fronts)
        z = float(rng.uniform(4, 9))
        while z < 60:
            kerb = side * (half + 0.55)
            if rng.random() < leafy:
                standing.append(_tree(street, kerb + side * 0.2, z, float(rng.uniform(4.5, 9))))
            elif rng.random() < 0.45:
                standing.append((z, partial(street.post, side, kerb, z)))
            if rng.random() < 0.16:
                x, at = wall - side * 0.6, z + 1.5
                standing.append((at, partial(street.bin, x, at)))
            z += float(rng.uniform(4.5, 10))
        z = float(rng.uniform(5.0, 9))
        while z < 60:
            if rng.random() < parked and half > 4.2:
                standing.append(_car(street, side * (half - 1.05), z, ahead=side > 0))
            z += float(rng.uniform(5.2, 7))
        z = float(rng.uniform(5, 8))
        while z < 45:
            if rng.random() < crowd * 2.2:
                x = side * (half + float(rng.uniform(0.3, walk - 0.3)))
                standing.append(_person(street, x, z, hard))
            z += float(rng.uniform(1.0, 4))
    for lane in (-1, 1):
        z = float(rng.uniform(9, 40))
        if rng.random() < 0.6:
            x = lane * min(half * 0.42, half - 2.2)
            standing.append(_car(street, x, z, ahead=lane > 0))
    if rng.random() < 0.3 * (crowd > 0):
        x, z = float(rng.uniform(-half, half)), float(rng.uniform(7, 22))
        standing.append(_person(street, x, z, hard))
    return fronts, standing


def _line_street(street: Street, side: int, wall: float, kind: str, fronts: list[_Drawing]) -> None:
    rng, z = street.rng, _NEAR
    base = float(rng.uniform(6, 16))
    hides = 0.0
    while z < _FAR:
        length = float(rng.uniform(6, 15))
        end = z + length
        if kind == "park" or (kind == "houses" and rng.random() < 0.35):
            high, hides = float(rng.uniform(0.8, 1.8)), 0.0
            fronts.append((z, partial(street.hedge, wall, z, end, high)))
            for _ in range(2 if kind == "park" else 1):
                at, x = (
                    z + float(rng.uniform(1.5, length)),
                    wall + side * float(rng.uniform(1.5, 7)),
                )
                fronts.append(_tree(street, x, max(at, 5.0), float(rng.uniform(6, 11))))
        else:
            tall = (4.5, 7.0) if kind == "houses" else (0.7 * base, 1.35 * base)
            high = float(rng.uniform(*tall))
            pitched = kind == "houses" or rng.random() < 0.25
            house = partial(street.house, side, wall, z, end, high)
            # Behind the nearer house, unless this one is taller; before the first, off the picture.
            face = z > _NEAR and (pitched or high > hides)
            fronts.append((z, partial(house, pitched=pitched, face=face)))
            hides = 0.0 if kind == "houses" else high
            if side == street.light.sun:
                reach = wall - side * min(high * 0.75, 11.0)
                street.canvas.add_shadow(street.ground(wall, reach, z, end))
        z = end + (float(rng.uniform(1.5, 4)) if kind == "houses" else 0.0)


def _tree(street: Street, x: float, z: float, height: float) -> _Drawing:
    drift = -street.light.sun * height * 0.35
    reach = height * 0.28
    street.canvas.add_shadow(street.ground(x + drift - reach, x + drift + reach, z - 1, z + 2))
    return z, partial(street.tree, x, z, height)


def _car(street: Street, x: float, z: float, *, ahead: bool) -> _Drawing:
    street.canvas.add_shadow(street.ground(x - 1.0, x + 1.0, z - 0.35, z + 4.4))
    return z, partial(street.car, x, z, ahead=ahead)


def _person(street: Street, x: float, z: float, hard: bool) -> _Drawing:
    height = float(street.rng.uniform(1.0 if hard else 1.25, 1.92))
    street.canvas.add_shadow(street.ground(x - 0.3, x + 0.3 - street.light.sun, z - 0.1, z + 0.3))
    return z, partial(street.person, x, z, height)


def _bonnet(street: Street) -> None:
    """The bonnet of the own car, which has no class."""
    height, width = street.canvas.mask.shape
    rise, middle = float(street.rng.uniform(0.05, 0.10)), float(street.rng.uniform(0.42, 0.58))
    across = np.linspace(0, 1, 12, dtype=np.float32)
    top = height * (1 - rise * np.clip(1 - ((across - middle) / 0.55) ** 2, 0, 1))
    shape = np.stack([across * width, top], axis=1)
    corners = np.array([(width, height + 4), (0, height + 4)], np.float32)
    paint = street.tint(things.PAINTS)
    street.canvas.fill(np.concatenate([shape, corners]), paint, VOID, blotch=0.15)
