"""What stands in a street: houses, trees, cars, people, posts."""

from __future__ import annotations

import numpy as np

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
        shift = self.rng.normal(0, self.jitter, 3) + self.rng.normal(0, self.jitter)
        return np.clip(base + shift, 12, 246).astype(np.float32)

    def quad(self, *points: tuple[float, float, float]) -> Floats:
        """Canvas corners of a polygon in the street."""
        return self.camera.project(points)

    def ground(self, x0: float, x1: float, z0: float, z1: float) -> Floats:
        """Canvas corners of a rectangle on the ground."""
        return self.quad((x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1))

    def lit(self, side: int) -> float:
        """Brightness of a wall on `side` of the street: the sun shines on the opposite one."""
        sunny = self.light.sun != side
        return 1 + (0.30 if sunny else -0.45) * self.light.shadow

    def house(self, side: int, x: float, z0: float, z1: float, height: float, pitched: bool) -> None:
        """A house whose wall along the street is at `x`, from `z0` to `z1`."""
        wall = self.tint(_FACADES)
        along, across = self.lit(side), 1 - 0.30 * self.light.shadow
        back = x + side * 14
        grain, blotch = 0.07, 0.07
        fill = self.canvas.fill
        front = self.quad((x, 0, z0), (x, height, z0), (back, height, z0), (back, 0, z0))
        fill(front, wall * across, BUILDING, depth=z0, grain=grain, blotch=blotch)
        if pitched:
            roof = self.tint(((124, 66, 52), (92, 88, 88), (110, 80, 66)))
            ridge, top = x + side * 4.5, height + 3.2
            gable = self.quad((x, height, z0), (ridge, top, z0), (x + side * 9, height, z0))
            fill(gable, wall * across, BUILDING, depth=z0, grain=grain, blotch=blotch)
            slope = self.quad((x, height, z0), (x, height, z1), (ridge, top, z1), (ridge, top, z0))
            fill(slope, roof * along, BUILDING, depth=(z0 + z1) / 2, grain=0.12)
        face = self.quad((x, 0, z0), (x, height, z0), (x, height, z1), (x, 0, z1))
        fill(face, wall * along, BUILDING, depth=(z0 + z1) / 2, grain=grain, blotch=blotch)
        if not pitched:
            band = self.quad(
                (x, height - 0.5, z0), (x, height, z0), (x, height, z1), (x, height - 0.5, z1)
            )
            fill(band, wall * along * 0.72, BUILDING, depth=(z0 + z1) / 2)
        self._windows(side, x, back, z0, z1, height)
        if height > 5 and self.rng.random() < 0.6:
            self._shop(side, x, z0, z1)

    def _windows(
        self, side: int, x: float, back: float, z0: float, z1: float, height: float
    ) -> None:
        storey, bay = self.rng.uniform(2.7, 3.4), self.rng.uniform(1.8, 3.0)
        low = np.arange(1.0 + storey * (height > 5), height - 1.9, storey)
        tall, wide = self.rng.uniform(1.2, 1.8), bay * self.rng.uniform(0.38, 0.62)
        glass = self.tint(((62, 74, 88), (84, 98, 112), (48, 52, 58), (116, 132, 148)))
        depth = (z0 + z1) / 2
        lamp = np.array((250, 206, 120), np.float32)
        starts = np.arange(z0 + 0.5, z1 - wide - 0.3, bay)
        if self.camera.scale(depth) * wide < 1.5 or not len(low):
            return
        y, z = (a.ravel() for a in np.meshgrid(low, starts))
        corners = [(x, y, z), (x, y + tall, z), (x, y + tall, z + wide), (x, y, z + wide)]
        self._panes(corners, glass, lamp, depth)
        if z0 > 4:
            y, a = (v.ravel() for v in np.meshgrid(low, np.arange(0.7, 12, bay)))
            near, far = x + side * a, x + side * (a + wide)
            corners = [(near, y, z0), (near, y + tall, z0), (far, y + tall, z0), (far, y, z0)]
            self._panes(corners, glass * 0.85, lamp, z0)

    def _panes(
        self, corners: list[tuple[object, ...]], glass: Floats, lamp: Floats, depth: float
    ) -> None:
        points = np.stack([np.stack(np.broadcast_arrays(*c), -1) for c in corners], axis=1)
        panes = self.camera.project(points)
        if not len(panes):
            return
        self.canvas.fill(list(panes), glass, BUILDING, depth=depth)
        if self.light.lamps:
            lit = panes[self.rng.random(len(panes)) < 0.4]
            if len(lit):
                self.canvas.fill(list(lit), lamp / self.light.gain, BUILDING, depth=depth)

    def _shop(self, side: int, x: float, z0: float, z1: float) -> None:
        depth = (z0 + z1) / 2
        glass = self.quad((x, 0.4, z0 + 0.4), (x, 2.4, z0 + 0.4), (x, 2.4, z1 - 0.4), (x, 0.4, z1 - 0.4))
        colour = np.array((214, 190, 140) if self.light.lamps else (66, 72, 78), np.float32)
        self.canvas.fill(glass, colour, BUILDING, depth=depth, blotch=0.25)
        board = self.tint(_SIGNS + PAINTS)
        reach = x - side * (0.9 if self.rng.random() < 0.5 else 0.0)
        awning = self.quad((x, 3.1, z0 + 0.3), (x, 3.1, z1 - 0.3), (reach, 2.5, z1 - 0.3), (reach, 2.5, z0 + 0.3))
        self.canvas.fill(awning, board, BUILDING, depth=depth, grain=0.05)

    def tree(self, x: float, z: float, height: float) -> None:
        """A tree: trunk and a crown of overlapping discs, lighter towards the sun."""
        scale = self.camera.scale(z)
        leaf = self.tint(((74, 104, 46), (56, 86, 48), (98, 118, 54), (118, 106, 50), (66, 98, 70)))
        if self.rng.random() < 0.12:
            leaf = self.tint(((168, 112, 46), (150, 84, 48)))
        thick = max(0.16, 1.6 / scale)
        trunk = self.quad((x - thick, 0, z), (x - thick / 2, height * 0.6, z), (x + thick / 2, height * 0.6, z), (x + thick, 0, z))
        self.canvas.fill(trunk, (78, 64, 52), VEGETATION, depth=z, grain=0.2)
        middle = self.camera.project((x, height * 0.68, z))
        spread = np.array((height * 0.27, height * 0.24), np.float32) * scale
        count = 9
        offset = self.rng.normal(0, 0.52, (count, 2)).clip(-0.95, 0.95) * spread
        radius = self.rng.uniform(0.45, 0.75, count)[:, None] * spread
        discs = [disc(middle + o, r, 11) for o, r in zip(offset, radius, strict=True)]
        dark, bright = leaf * (1 - 0.5 * self.light.shadow - 0.12), leaf * 1.12
        toward = np.array((self.light.sun * 0.22, -0.26), np.float32) * spread
        for shape in discs:
            self.canvas.fill(shape, dark, VEGETATION, depth=z, grain=0.30, blotch=0.35)
        for shape, o in zip(discs, offset, strict=True):
            inner = middle + o + toward + (shape - middle - o) * 0.66
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
        rng, fill = self.rng, self.canvas.fill
        paint = self.tint(PAINTS)
        van = rng.random() < 0.2
        length, half = (5.2, 0.98) if van else (rng.uniform(3.8, 4.6), rng.uniform(0.84, 0.92))
        belt, top = (1.15, 2.15) if van else (0.92, rng.uniform(1.40, 1.58))
        end = z + length
        inner = x - half if x > self.camera.x else x + half
        glass = np.array((44, 52, 60), np.float32) + 0.25 * self.light.zenith
        facing = -1 if x > self.camera.x else 1
        shade = self.lit(-facing)
        flank = [(inner, 0.3, z), (inner, belt, z), (inner, belt, end), (inner, 0.3, end)]
        fill(self.quad(*flank), paint * shade * 0.92, CAR, depth=z, grain=0.03)
        roof_x = inner + facing * -0.16
        cab0, cab1 = (z + 0.1, end - 1.0) if van else (z + 0.35, end - 1.15)
        cabin = [(inner, belt, cab0 - 0.1), (roof_x, top, cab0 + 0.4), (roof_x, top, cab1 - 0.5), (inner, belt, cab1)]
        fill(self.quad(*cabin), paint * shade * 0.9, CAR, depth=z)
        pane = [(inner, belt + 0.06, cab0 + 0.2), (roof_x, top - 0.1, cab0 + 0.6), (roof_x, top - 0.1, cab1 - 0.7), (inner, belt + 0.06, cab1 - 0.25)]
        fill(self.quad(*pane), glass, CAR, depth=z)
        for at in (z + 0.75, end - 0.8):
            wheel = [(inner, 0.32 + 0.32 * np.sin(a), at + 0.32 * np.cos(a)) for a in np.arange(8) * np.pi / 4]
            fill(self.quad(*wheel), (24, 24, 26), CAR, depth=z)
        left, right = x - half, x + half
        for a, b in ((left, left + 0.24), (right - 0.24, right)):
            fill(self.quad((a, 0, z), (a, 0.4, z), (b, 0.4, z), (b, 0, z)), (22, 22, 24), CAR, depth=z)
        body = [(left, 0.26, z), (left - 0.0, belt * 0.8, z), (left + 0.08, belt, z), (right - 0.08, belt, z), (right, belt * 0.8, z), (right, 0.26, z)]
        tone = 1 - 0.15 * self.light.shadow
        fill(self.quad(*body), paint * tone, CAR, depth=z, grain=0.03)
        cab_low = [(left + 0.06, belt, z + 0.1), (left + 0.2, top, z + 0.5), (right - 0.2, top, z + 0.5), (right - 0.06, belt, z + 0.1)]
        fill(self.quad(*cab_low), paint * tone * 1.05, CAR, depth=z)
        screen = [(left + 0.15, belt + 0.05, z + 0.12), (left + 0.27, top - 0.12, z + 0.45), (right - 0.27, top - 0.12, z + 0.45), (right - 0.15, belt + 0.05, z + 0.12)]
        fill(self.quad(*screen), glass * 1.1, CAR, depth=z)
        fill(self.quad((left, 0.26, z), (left, 0.42, z), (right, 0.42, z), (right, 0.26, z)), paint * 0.45, CAR, depth=z)
        glow = (1.3 if self.light.lamps else 1.0) / self.light.gain
        lamp = np.array((190, 30, 30) if ahead else (240, 240, 220), np.float32) * glow
        for a, b in ((left + 0.05, left + 0.33), (right - 0.33, right - 0.05)):
            fill(self.quad((a, belt - 0.32, z), (a, belt - 0.14, z), (b, belt - 0.14, z), (b, belt - 0.32, z)), lamp, CAR, depth=z)
        plate = self.quad((x - 0.26, 0.46, z), (x - 0.26, 0.58, z), (x + 0.26, 0.58, z), (x + 0.26, 0.46, z))
        fill(plate, (222, 222, 206), CAR, depth=z)

    def person(self, x: float, z: float, height: float) -> None:
        """Somebody who stands or walks."""
        rng, fill = self.rng, self.canvas.fill
        coat, legs = self.tint(PAINTS + _SIGNS), self.tint(((40, 44, 62), (70, 66, 62), (28, 28, 30), (124, 110, 90)))
        skin = np.array(_SKINS[int(rng.integers(4))], np.float32)
        s, stride = height / 1.75, rng.uniform(0.04, 0.24)
        for foot in (-stride, stride):
            leg = self.quad((x - 0.10 * s, 0.85 * s, z), (x + 0.10 * s, 0.85 * s, z), (x + foot + 0.07, 0, z), (x + foot - 0.07, 0, z))
            fill(leg, legs, PERSON, depth=z)
        w = 0.23 * s
        torso = [(x - 0.8 * w, 0.8 * s, z), (x - w, 1.3 * s, z), (x - 0.7 * w, 1.46 * s, z), (x + 0.7 * w, 1.46 * s, z), (x + w, 1.3 * s, z), (x + 0.8 * w, 0.8 * s, z)]
        fill(self.quad(*torso), coat, PERSON, depth=z, grain=0.08)
        swing = rng.uniform(-0.15, 0.25)
        for hand in (-1, 1):
            arm = self.quad((x + hand * w, 1.4 * s, z), (x + hand * w * 0.7, 1.3 * s, z), (x + hand * (w + swing) * 0.9, 0.78 * s, z), (x + hand * (w + swing) * 1.2, 0.8 * s, z))
            fill(arm, coat * 0.88, PERSON, depth=z)
        head = self.camera.project((x, 1.6 * s, z))
        radius = 0.125 * s * self.camera.scale(z)
        fill(disc(head, (radius, radius * 1.2), 10), skin, PERSON, depth=z)
        hair = disc(head - (0, radius * 0.35), (radius * 1.05, radius * 0.95), 10)[4:]
        fill(hair, self.tint(((48, 36, 28), (30, 28, 28), (120, 92, 58), (150, 146, 140))), PERSON, depth=z)

    def post(self, side: int, x: float, z: float) -> None:
        """A traffic sign, a traffic light or a street lamp."""
        rng, fill, scale = self.rng, self.canvas.fill, self.camera.scale(z)
        metal = self.tint(((120, 124, 126), (86, 88, 90), (152, 152, 150)))
        kind = rng.choice(4, p=(0.45, 0.15, 0.3, 0.1))
        half = max(0.06, 1.1 / scale)
        tall = (2.9, 3.2, 6.5, 2.6)[kind]
        pole = self.quad((x - half, 0, z), (x - half, tall, z), (x + half, tall, z), (x + half, 0, z))
        fill(pole, metal, SIGN, depth=z)
        if kind == 2:
            tip = x - side * 1.8
            arm = self.quad((x, tall, z), (tip, tall + 0.25, z), (tip, tall + 0.25 + 2 * half, z), (x, tall + 2 * half, z))
            fill(arm, metal, SIGN, depth=z)
            bulb = self.quad((tip - 0.35, tall + 0.1, z), (tip - 0.35, tall + 0.34, z), (tip + 0.35, tall + 0.34, z), (tip + 0.35, tall + 0.1, z))
            fill(bulb, np.array((255, 226, 160), np.float32) / self.light.gain if self.light.lamps else metal * 1.15, SIGN, depth=z)
            return
        centre = self.camera.project((x, tall - 0.3, z))
        radius = 0.42 * scale
        if kind == 1:
            box = centre + np.array([(-0.24, -0.7), (0.24, -0.7), (0.24, 0.55), (-0.24, 0.55)], np.float32) * scale
            fill(box, (30, 32, 34), SIGN, depth=z)
            at = int(rng.integers(3))
            lamp = ((228, 48, 40), (240, 180, 50), (60, 200, 110))[at]
            fill(disc(centre + (0, (-0.48, -0.08, 0.32)[at] * scale), 0.15 * scale, 10), lamp, SIGN, depth=z)
            return
        colour = self.tint(_SIGNS)
        shape = int(rng.integers(3))
        if shape == 2 or kind == 3:
            board = centre + np.array([(-0.8, -0.5), (0.8, -0.5), (0.8, 0.5), (-0.8, 0.5)], np.float32) * radius
            inner = centre + (board - centre) * 0.8
            fill(board, (232, 232, 230), SIGN, depth=z)
        else:
            board = disc(centre, radius, 3 if shape else 14)
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
        lid = self.quad((x - w * 1.1, h, z), (x - w * 0.8, h + 0.14, z), (x + w * 0.8, h + 0.14, z), (x + w * 1.1, h, z))
        self.canvas.fill(lid, colour * 0.7, VOID, depth=z)
