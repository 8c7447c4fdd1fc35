import numpy as np
import pytest

from pixelcontrast.data.scenes.canvas import Camera, Canvas, disc


@pytest.fixture
def canvas():
    return Canvas.blank(20, 30, np.random.default_rng(0), haze=(200, 100, 50), visibility=10.0)


def test_projection_is_that_of_a_pinhole():
    camera = Camera(x=1.0, height=1.5, focal=100.0, centre=(50.0, 40.0), roll=0.0)
    assert camera.project((1.0, 1.5, 7.0)).tolist() == [50.0, 40.0]
    assert camera.project((2.0, 0.5, 10.0)).tolist() == [60.0, 50.0]
    assert camera.scale(20) == 5
    turned = Camera(x=1.0, height=1.5, focal=100.0, centre=(50.0, 40.0), roll=np.pi / 2)
    assert turned.project((2.0, 0.5, 10.0)).round(3).tolist() == [40.0, 50.0]
    assert camera.project(np.ones((4, 5, 3))).shape == (4, 5, 2)


SQUARE = np.array([(5, 5), (12, 5), (12, 12), (5, 12)], np.float32)


@pytest.mark.parametrize("grain", [0.0, 0.2])
def test_fill_paints_picture_and_labels_alike(canvas, grain):
    canvas.fill(SQUARE, (10, 20, 30), 3, grain=grain)
    inside = canvas.mask == 3
    assert inside.sum() == 64
    assert inside[5:13, 5:13].all()
    assert (canvas.image.any(axis=-1) == inside).all()
    ratio = canvas.image[inside] / (10, 20, 30)
    assert (np.ptp(ratio, axis=1) < 1e-5).all()
    assert (np.ptp(ratio) > 0.05) == bool(grain)


def test_overlapping_noisy_polygons_are_united(canvas):
    canvas.fill(np.stack([SQUARE, SQUARE + 3]), (10, 20, 30), 4, grain=0.1)
    assert (canvas.mask == 4).sum() == 64 + 64 - 25


def test_outside_the_picture_nothing_happens(canvas):
    for far in (-1000, 1000):
        canvas.fill(SQUARE + far, (1, 2, 3), 5, grain=0.1)
        canvas.fill(SQUARE + far, (1, 2, 3), 5)
    assert not canvas.mask.any()
    canvas.fill(SQUARE - 8, (1, 2, 3), 5, grain=0.1)
    assert (canvas.mask == 5).sum() == 25


def test_distance_turns_colours_into_haze(canvas):
    assert canvas.hazy((0, 0, 0), 0).tolist() == [0, 0, 0]
    assert np.allclose(canvas.hazy((0, 0, 0), 10), np.array((200, 100, 50)) * (1 - np.exp(-1)))
    assert np.allclose(canvas.hazy((0, 0, 0), 1e4), (200, 100, 50))


def test_shadows_darken_once(canvas):
    canvas.image[:] = 100
    canvas.add_shadow(SQUARE)
    canvas.add_shadow(SQUARE)
    canvas.cast_shadows(0.25)
    assert np.allclose(canvas.image[7:11, 7:11], 75)
    assert np.allclose(canvas.image[15:], 100)


def test_what_is_seen(canvas):
    assert canvas.sees(-5, 1)
    assert not canvas.sees(-5, -1)
    assert not canvas.sees(30, 40)


def test_disc():
    ring = disc((3, 4), (1, 2), 8)
    assert ring.shape == (8, 2)
    assert np.allclose(((ring - (3, 4)) / (1, 2) ** np.array(1)) ** 2 @ (1, 1), 1)
    assert disc(np.zeros((5, 2)), np.ones((5, 2)), 6).shape == (5, 6, 2)
