"""What stands in a street: houses, trees, cars, people, posts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from pixelcontrast.data.scenes.canvas import Camera, Canvas, Floats, disc
from pixelcontrast.data.scenes.light import Light

SKY, BUILDING, ROAD, PAVEMENT, VEGETATION, CAR, PERSON, SIGN = range(8)
VOID = 255

_FACADES = (
    (168, 104, 82), (142, 88, 72), (206, 192, 164), (188, 172, 140), (150, 150, 152),
    (122, 126, 134), (214, 210, 202), (176, 148, 118), (134, 146, 158), (196, 160, 120),
    (112, 104, 98), (158, 166, 146), (182, 128, 112), (126, 132, 108),
)  # fmt: skip
PAINTS = (
    (224, 226, 228), (34, 36, 40), (120, 124, 130), (172, 176, 182), (168, 34, 36), (38, 70, 132),
    (58, 88, 66), (198, 158, 52), (84, 60, 50), (146, 160, 172),
)  # fmt: skip
_SKINS = ((228, 190, 160), (198, 150, 116), (150, 104, 76), (96, 66, 50))
_SIGNS = ((196, 36, 40), (36, 84, 168), (232, 190, 40), (236, 236, 232), (40, 128, 82))


Point = tuple[float, float, float]


_FINE = 3.0
"""Canvas pixels of a metre below which windows are not drawn; cars lose details at twice that."""


class Street:
    """Draws things into one canvas, with one camera, light and random source."""

    def __init__(
        self, canvas: Canvas, camera: Camera, light: Light, rng: np.random.Generator, jitter: float
    ) -> None:
        """Args: `jitter` is the standard deviation of colours, of 255."""
        self.canvas = canvas
        self.camera = camera
        self.light = light
        self.rng = rng
        self.jitter = jitter

    def tint(self, colours: tuple[tuple[int, int, int], ...]) -> Floats:
        """One of `colours`, varied."""
        base = np.array(colours[int(self.rng.integers(len(colours)))], np.float32)
        shift = self.rng.normal(0, 0.6 * self.jitter, 3) + self.rng.normal(0, 1.2 * self.jitter)
        return np.clip(base + shift, 12, 246).astype(np.float32)

    def quad(self, *points: Point) -> Floats:
        """Canvas corners of a polygon in the street."""
        return self.camera.project(points)

    def ground(self, x0: float, x1: float, z0: float, z1: float) -> Floats:
        """Canvas corners of a rectangle on the ground."""
        return self.quad((x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1))

    def paint(self, parts: Sequence[tuple[list[Point], Floats]], label: int, depth: float) -> None:
        """Fill polygons of street points one after the other; one projection for all of them."""
        flat = self.camera.project([point for points, _ in parts for point in points])
        at = 0
        for points, colour in parts:
            self.canvas.fill(flat[at : at + len(points)], colour, label, depth=depth)
            at += len(points)

    def lit(self, side: int) -> float:
        """Brightness of a wall on `side` of the street: the sun shines on the opposite one."""
        sunny = self.light.sun != side
        return 1 + (0.30 if sunny else -0.45) * self.light.shadow

    def house(
        self,
        side: int,
        x: float,
        z0: float,
        z1: float,
        height: float,
        *,
        pitched: bool,
        face: bool,
    ) -> None:
        """A house whose wall along the street is at `x`, from `z0` to `z1`.

        Args:
            side: -1 left, 1 right.
            x: place of the wall across the street.
            z0: nearest point.
            z1: farthest point.
            height: of the walls.
            pitched: whether there is a gabled roof.
            face: whether the wall towards the camera can be seen.
        """
        wall = self.tint(_FACADES)
        along, across = self.lit(side), 1 - 0.30 * self.light.shadow
        back = x + side * 14
        grain, blotch = 0.07, 0.07
        fill = self.canvas.fill
        if face:
            front = self.quad((x, 0, z0), (x, height, z0), (back, height, z0), (back, 0, z0))
            fill(front, wall * across, BUILDING, depth=z0, grain=grain, blotch=blotch)
        if pitched:
            roof = self.tint(((124, 66, 52), (92, 88, 88), (110, 80, 66)))
            ridge, top = x + side * 4.5, height + 3.2
            gable = self.quad((x, height, z0), (ridge, top, z0), (x + side * 9, height, z0))
            fill(gable, wall * across, BUILDING, depth=z0, grain=grain, blotch=blotch)
            slope = self.quad((x, height, z0), (x, height, z1), (ridge, top, z1), (ridge, top, z0))
            fill(slope, roof * along, BUILDING, depth=(z0 + z1) / 2, grain=0.12)
        flank = self.quad((x, 0, z0), (x, height, z0), (x, height, z1), (x, 0, z1))
        fill(flank, wall * along, BUILDING, depth=(z0 + z1) / 2, grain=grain, blotch=blotch)
        if not pitched:
            band = self.quad(
                (x, height - 0.5, z0), (x, height, z0), (x, height, z1), (x, height - 0.5, z1)
            )
            fill(band, wall * along * 0.72, BUILDING, depth=(z0 + z1) / 2)
        self._windows(side, x, z0, z1, height, face)
        if height > 5 and self.rng.random() < 0.6:
            self._shop(side, x, z0, z1)

    def _windows(
        self, side: int, x: float, z0: float, z1: float, height: float, face: bool
    ) -> None:
        storey, bay = self.rng.uniform(2.7, 3.4), self.rng.uniform(1.8, 3.0)
        low = np.arange(1.0 + storey * (height > 5), height - 1.9, storey)
        tall, wide = self.rng.uniform(1.2, 1.8), bay * self.rng.uniform(0.38, 0.62)
        glass = self.tint(((62, 74, 88), (84, 98, 112), (48, 52, 58), (116, 132, 148)))
        rise = low[:, None, None] + np.array((0, tall, tall, 0))
        if len(low):
            along = np.arange(z0 + 0.5, z1 - wide - 0.3, bay)[:, None] + (0, 0, wide, wide)
            self._panes(x, rise, along, glass, (z0 + z1) / 2)
        if len(low) and face:
            out = np.arange(0.7, 12, bay)[:, None] + (0, 0, wide, wide)
            self._panes(x + side * out, rise, z0, glass * np.float32(0.85), z0)

    def _panes(self, x: ArrayLike, y: ArrayLike, z: ArrayLike, glass: Floats, depth: float) -> None:
        """Windows whose corners (storeys, bays, 4) have these coordinates; some are lit at dusk."""
        shape = np.broadcast_shapes(np.shape(x), np.shape(y), np.shape(z))
        points = np.empty((*shape, 3), np.float32)
        points[..., 0], points[..., 1], points[..., 2] = x, y, z
        panes = self.camera.project(points.reshape(-1, 4, 3))
        lit = panes[:0]
        if self.light.lamps:
            lit = panes[self.rng.random(len(panes)) < 0.4]
        if self.camera.scale(depth) > _FINE and len(panes):
            self.canvas.fill(panes, glass, BUILDING, depth=depth)
            if len(lit):
                lamp = np.array((250, 206, 120), np.float32) / self.light.gain
                self.canvas.fill(lit, lamp, BUILDING, depth=depth)

    def _shop(self, side: int, x: float, z0: float, z1: float) -> None:
        depth = (z0 + z1) / 2
        glass = self.quad(
            (x, 0.4, z0 + 0.4), (x, 2.4, z0 + 0.4), (x, 2.4, z1 - 0.4), (x, 0.4, z1 - 0.4)
        )
        colour = np.array((214, 190, 140) if self.light.lamps else (66, 72, 78), np.float32)
        self.canvas.fill(glass, colour, BUILDING, depth=depth, blotch=0.25)
        board = self.tint(_SIGNS + PAINTS)
        reach = x - side * (0.9 if self.rng.random() < 0.5 else 0.0)
        awning = self.quad(
            (x, 3.1, z0 + 0.3), (x, 3.1, z1 - 0.3), (reach, 2.5, z1 - 0.3), (reach, 2.5, z0 + 0.3)
        )
        self.canvas.fill(awning, board, BUILDING, depth=depth, grain=0.05)

    def tree(self, x: float, z: float, height: float) -> None:
        """A tree: trunk and a crown of overlapping discs, lighter towards the sun."""
        scale = self.camera.scale(z)
        middle = self.camera.project((x, height * 0.68, z))
        spread = np.array((height * 0.27, height * 0.24), np.float32) * scale
        if not self.canvas.sees(middle[0] - 2 * spread[0], middle[0] + 2 * spread[0]):
            return
        leaf = self.tint(((74, 104, 46), (56, 86, 48), (98, 118, 54), (118, 106, 50), (66, 98, 70)))
        if self.rng.random() < 0.12:
            leaf = self.tint(((168, 112, 46), (150, 84, 48)))
        thick = max(0.16, 1.6 / scale)
        trunk = self.quad(
            (x - thick, 0, z),
            (x - thick / 2, height * 0.6, z),
            (x + thick / 2, height * 0.6, z),
            (x + thick, 0, z),
        )
        self.canvas.fill(trunk, (78, 64, 52), VEGETATION, depth=z, grain=0.2)
        count = 9 if z < 40 else 5
        offset = self.rng.normal(0, 0.52, (count, 2)).clip(-0.95, 0.95) * spread
        radius = self.rng.uniform(0.45, 0.75, count)[:, None] * spread
        discs = disc(middle + offset, radius, 11)
        dark, bright = leaf * (1 - 0.5 * self.light.shadow - 0.12), leaf * 1.12
        toward = np.array((self.light.sun * 0.22, -0.26), np.float32) * spread
        inner = disc(middle + offset + toward, radius * 0.66, 11)
        self.canvas.fill(discs, dark, VEGETATION, depth=z, grain=0.30, blotch=0.35)
        self.canvas.fill(inner, bright, VEGETATION, depth=z, grain=0.30, blotch=0.35)

    def hedge(self, x: float, z0: float, z1: float, height: float) -> None:
        """A hedge or grassy bank along the street."""
        leaf = self.tint(((70, 98, 48), (88, 110, 58), (54, 80, 44)))
        steps = np.linspace(z0, z1, 9)
        crest = height * self.rng.uniform(0.75, 1.15, 9)
        upper = [(x, float(y), float(z)) for y, z in zip(crest, steps, strict=True)]
        outline = self.quad(*upper, (x, 0, z1), (x, 0, z0))
        depth = (z0 + z1) / 2
        self.canvas.fill(outline, leaf, VEGETATION, depth=depth, grain=0.3, blotch=0.3)

    def car(self, x: float, z: float, *, ahead: bool) -> None:
        """A car or van; `ahead` shows its rear, else it comes towards the camera."""
        rng, reach = self.rng, 6 * self.camera.scale(z)
        middle = float(self.camera.project((x, 1.0, z))[0])
        if not self.canvas.sees(middle - reach, middle + reach):
            return
        paint = self.tint(PAINTS)
        van = rng.random() < 0.2
        length, half = (5.2, 0.98) if van else (rng.uniform(3.8, 4.6), rng.uniform(0.84, 0.92))
        belt, top = (1.15, 2.15) if van else (0.92, rng.uniform(1.40, 1.58))
        end, facing = z + length, -1 if x > self.camera.x else 1
        inner, leaning = x + facing * half, x + facing * (half - 0.2)
        left, right = x - half, x + half
        near, far = (z + 0.1, end - 1.0) if van else (z + 0.35, end - 1.15)
        glass = (0.25 * self.light.zenith + (44, 52, 60)).astype(np.float32)
        flank = paint * self.lit(-facing) * 0.92
        back = paint * (1 - 0.15 * self.light.shadow)
        glow = np.float32(1.3 if self.light.lamps else 1.0) / self.light.gain
        lamp = np.array((190, 30, 30) if ahead else (240, 240, 220), np.float32) * glow
        black = np.array((23, 23, 25), np.float32)
        turn = np.arange(8) * (np.pi / 4)
        rise, roll = 0.32 + 0.32 * np.sin(turn), 0.32 * np.cos(turn)

        def upright(x0: float, x1: float, y0: float, y1: float) -> list[Point]:
            return [(x0, y0, z), (x0, y1, z), (x1, y1, z), (x1, y0, z)]

        def wheel(at: float) -> list[Point]:
            return [(inner, float(y), at + float(dz)) for y, dz in zip(rise, roll, strict=True)]

        def along(y0: float, y1: float, low: float, high: float, lean: float) -> list[Point]:
            # A pane in the side of the car, narrower at the top.
            return [
                (inner, y0, near + low), (leaning, y1, near + lean),
                (leaning, y1, far - lean), (inner, y0, far - high),
            ]  # fmt: skip

        def across(y0: float, y1: float, in0: float, in1: float) -> list[Point]:
            # A pane in the end of the car, leaning inwards.
            return [
                (left + in0, y0, z + 0.1), (left + in1, y1, z + 0.5),
                (right - in1, y1, z + 0.5), (right - in0, y0, z + 0.1),
            ]  # fmt: skip

        cabin = [
            (inner, belt, z + 0.1), (leaning, top, z + 0.5),
            (leaning, top, far - 0.4), (inner, belt, far),
        ]  # fmt: skip
        body = [
            (left, 0.26, z), (left, belt * 0.8, z), (left + 0.03, belt, z),
            (right - 0.03, belt, z), (right, belt * 0.8, z), (right, 0.26, z),
        ]  # fmt: skip
        parts: list[tuple[list[Point], Floats]] = [
            ([(inner, 0.3, z), (inner, belt, z), (inner, belt, end), (inner, 0.3, end)], flank),
            (cabin, flank),
            (upright(left, left + 0.24, 0, 0.4), black),
            (upright(right - 0.24, right, 0, 0.4), black),
            (body, back),
            (across(belt, top, 0.0, 0.2), back * 1.05),
            (across(belt + 0.05, top - 0.12, 0.15, 0.27), glass * 1.1),
        ]
        if self.camera.scale(z) > 2 * _FINE:
            parts[2:2] = [
                (along(belt + 0.06, top - 0.1, 0.2, 0.25, 0.6), glass),
                (wheel(z + 0.75), black),
                (wheel(end - 0.8), black),
            ]
            parts += [
                (upright(left, right, 0.26, 0.42), paint * 0.45),
                (upright(left + 0.05, left + 0.33, belt - 0.32, belt - 0.14), lamp),
                (upright(right - 0.33, right - 0.05, belt - 0.32, belt - 0.14), lamp),
                (upright(x - 0.26, x + 0.26, 0.46, 0.58), np.array((222, 222, 206), np.float32)),
            ]
        self.paint(parts, CAR, z)

    def person(self, x: float, z: float, height: float) -> None:
        """Somebody who stands or walks."""
        rng, s = self.rng, height / 1.75
        coat = self.tint(PAINTS + _SIGNS)
        trousers = self.tint(((40, 44, 62), (70, 66, 62), (28, 28, 30), (124, 110, 90)))
        hair = self.tint(((48, 36, 28), (30, 28, 28), (120, 92, 58), (150, 146, 140)))
        skin = np.array(_SKINS[int(rng.integers(4))], np.float32)
        stride, swing, w = rng.uniform(0.04, 0.24), rng.uniform(-0.15, 0.25), 0.23 * s
        parts: list[tuple[list[Point], Floats]] = []
        for foot in (-stride, stride):
            leg = [(-0.10 * s, 0.85 * s), (0.10 * s, 0.85 * s), (foot + 0.07, 0), (foot - 0.07, 0)]
            parts.append(([(x + a, b, z) for a, b in leg], trousers))
        torso = [
            (-0.8 * w, 0.8),
            (-w, 1.3),
            (-0.7 * w, 1.46),
            (0.7 * w, 1.46),
            (w, 1.3),
            (0.8 * w, 0.8),
        ]
        parts.append(([(x + a, b * s, z) for a, b in torso], coat))
        for hand in (-w, w):
            out = hand * (1 + swing / w)
            arm = [(hand, 1.4), (hand * 0.7, 1.3), (out * 0.9, 0.78), (out * 1.2, 0.8)]
            parts.append(([(x + a, b * s, z) for a, b in arm], coat * 0.88))
        parts.append((_round(x, 1.60 * s, z, 0.125 * s, 0.15 * s), skin))
        parts.append((_round(x, 1.66 * s, z, 0.13 * s, 0.10 * s), hair))
        self.paint(parts, PERSON, z)

    def post(self, side: int, x: float, z: float) -> None:
        """A traffic sign, a traffic light or a street lamp."""
        rng, fill, scale = self.rng, self.canvas.fill, self.camera.scale(z)
        metal = self.tint(((120, 124, 126), (86, 88, 90), (152, 152, 150)))
        kind = rng.choice(4, p=(0.45, 0.15, 0.3, 0.1))
        half = max(0.06, 1.1 / scale)
        tall = (2.9, 3.2, 6.5, 2.6)[kind]
        pole = self.quad(
            (x - half, 0, z), (x - half, tall, z), (x + half, tall, z), (x + half, 0, z)
        )
        fill(pole, metal, SIGN, depth=z)
        if kind == 2:
            tip = x - side * 1.8
            arm = self.quad(
                (x, tall, z),
                (tip, tall + 0.25, z),
                (tip, tall + 0.25 + 2 * half, z),
                (x, tall + 2 * half, z),
            )
            fill(arm, metal, SIGN, depth=z)
            bulb = self.quad(
                (tip - 0.35, tall + 0.1, z),
                (tip - 0.35, tall + 0.34, z),
                (tip + 0.35, tall + 0.34, z),
                (tip + 0.35, tall + 0.1, z),
            )
            fill(
                bulb,
                np.array((255, 226, 160), np.float32) / self.light.gain
                if self.light.lamps
                else metal * 1.15,
                SIGN,
                depth=z,
            )
            return
        centre = self.camera.project((x, tall - 0.3, z))
        radius = 0.42 * scale
        if kind == 1:
            box = (
                centre
                + np.array([(-0.24, -0.7), (0.24, -0.7), (0.24, 0.55), (-0.24, 0.55)], np.float32)
                * scale
            )
            fill(box, (30, 32, 34), SIGN, depth=z)
            at = int(rng.integers(3))
            lamp = ((228, 48, 40), (240, 180, 50), (60, 200, 110))[at]
            middle = centre + np.array((0, (-0.48, -0.08, 0.32)[at] * scale), np.float32)
            fill(disc(middle, (0.15 * scale, 0.15 * scale), 10), lamp, SIGN, depth=z)
            return
        colour = self.tint(_SIGNS)
        shape = int(rng.integers(3))
        if shape == 2 or kind == 3:
            board = (
                centre
                + np.array([(-0.8, -0.5), (0.8, -0.5), (0.8, 0.5), (-0.8, 0.5)], np.float32)
                * radius
            )
            inner = centre + (board - centre) * 0.8
            fill(board, (232, 232, 230), SIGN, depth=z)
        else:
            board = disc(centre, (radius, radius), 3 if shape else 14)
            if shape:
                board = centre + (board - centre)[:, ::-1] * (1, -1)
            inner = centre + (board - centre) * 0.62
            fill(board, colour, SIGN, depth=z)
            colour = np.array((240, 238, 232), np.float32)
        fill(inner.astype(np.float32), colour, SIGN, depth=z)

    def bin(self, x: float, z: float) -> None:
        """A litter bin or a bollard: a thing without a class."""
        colour = self.tint(((52, 84, 62), (60, 62, 66), (150, 92, 50)))
        h, w = self.rng.uniform(0.8, 1.1), self.rng.uniform(0.2, 0.32)
        shape = self.quad((x - w, 0, z), (x - w * 1.1, h, z), (x + w * 1.1, h, z), (x + w, 0, z))
        self.canvas.fill(shape, colour, VOID, depth=z, grain=0.1)
        lid = self.quad(
            (x - w * 1.1, h, z),
            (x - w * 0.8, h + 0.14, z),
            (x + w * 0.8, h + 0.14, z),
            (x + w * 1.1, h, z),
        )
        self.canvas.fill(lid, colour * 0.7, VOID, depth=z)


def _round(x: float, y: float, z: float, wide: float, tall: float) -> list[Point]:
    """An upright ellipse in the street."""
    turn = np.arange(10) * (np.pi / 5)
    return [(x + wide * float(np.cos(a)), y + tall * float(np.sin(a)), z) for a in turn]
