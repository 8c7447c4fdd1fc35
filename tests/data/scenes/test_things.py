import numpy as np
import pytest

from pixelcontrast.data.scenes import things
from pixelcontrast.data.scenes.canvas import Camera, Canvas
from pixelcontrast.data.scenes.light import draw_light
from pixelcontrast.data.scenes.things import Street


def drawn(draw, label, seed):
    rng = np.random.default_rng(seed)
    light = draw_light(rng, hard=seed % 2 == 1)
    canvas = Canvas.blank(160, 240, rng, light.haze, light.visibility)
    camera = Camera(x=0.0, height=1.6, focal=200.0, centre=(120.0, 70.0), roll=0.0)
    canvas.mask[:] = 99
    draw(Street(canvas, camera, light, rng, jitter=8.0))
    assert set(np.unique(canvas.mask)) == {99, label}
    assert np.isfinite(canvas.image).all()
    rows, columns = np.nonzero(canvas.mask == label)
    return rows, columns


# Name, drawing at 10 metres, label, lowest and highest point in metres, centre column in metres.
THINGS = [
    ("car", lambda s: s.car(0.0, 10.0, ahead=True), things.CAR, 0, (1.4, 2.2)),
    ("oncoming", lambda s: s.car(0.0, 10.0, ahead=False), things.CAR, 0, (1.4, 2.2)),
    ("person", lambda s: s.person(0.0, 10.0, 1.75), things.PERSON, 0, (1.6, 1.9)),
    ("post", lambda s: s.post(1, 0.0, 10.0), things.SIGN, 0, (2.5, 7.0)),
    ("tree", lambda s: s.tree(0.0, 10.0, 4.0), things.VEGETATION, 0, (3.0, 5.2)),
    ("bin", lambda s: s.bin(0.0, 10.0), things.VOID, 0, (0.8, 1.4)),
]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("name", "draw", "label", "low", "high"), THINGS)
def test_things_stand_on_the_ground_at_their_size(name, draw, label, low, high, seed):
    rows, columns = drawn(draw, label, seed)
    ground = 70 + 200 * 1.6 / 10
    assert abs(rows.max() - ground) <= 4
    height = (ground - rows.min()) / 20
    visible = ground / 20
    assert min(high[0], visible) - 0.3 <= height <= high[1] + 0.3
    if name != "post":
        assert abs(columns.mean() - 120) < 8


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("side", [-1, 1])
def test_houses_and_hedges_stand_at_their_side(side, seed):
    for draw, label in (
        (
            lambda s: s.house(side, side * 6.0, 8.0, 20.0, 9.0, pitched=seed % 2 == 0, face=True),
            things.BUILDING,
        ),
        (lambda s: s.hedge(side * 6.0, 8.0, 20.0, 1.5), things.VEGETATION),
    ):
        _, columns = drawn(draw, label, seed)
        assert ((columns - 120) * side > 30).all()


def test_things_outside_the_picture_are_not_drawn():
    rng = np.random.default_rng(0)
    light = draw_light(rng, hard=False)
    canvas = Canvas.blank(40, 60, rng, light.haze, light.visibility)
    camera = Camera(x=0.0, height=1.6, focal=50.0, centre=(30.0, 20.0), roll=0.0)
    street = Street(canvas, camera, light, rng, jitter=8.0)
    street.car(60.0, 8.0, ahead=True)
    street.tree(-60.0, 8.0, 6.0)
    street.person(50.0, 8.0, 1.7)
    assert not canvas.mask.any()
