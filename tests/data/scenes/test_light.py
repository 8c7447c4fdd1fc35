import dataclasses

import numpy as np

from pixelcontrast.data.scenes.light import develop, draw_light


def test_hard_light_is_noisier_and_hazier():
    rng = np.random.default_rng(0)
    usual = [draw_light(rng, hard=False) for _ in range(300)]
    hard = [draw_light(rng, hard=True) for _ in range(300)]
    for name in ("noise", "blur", "rain", "lamps"):
        values = [np.mean([getattr(light, name) for light in group]) for group in (usual, hard)]
        assert values[0] < values[1], name
    assert np.median([i.visibility for i in usual]) > np.median([i.visibility for i in hard])


def test_developing_keeps_size_and_applies_the_exposure():
    light = dataclasses.replace(
        draw_light(np.random.default_rng(0), hard=False),
        gain=np.array([1.0, 0.5, 2.0], np.float32), noise=0.0, blur=0.0, rain=False,
    )  # fmt: skip
    canvas = np.full((9, 11, 3), 100, np.float32)
    image = develop(canvas, light, np.random.default_rng(0))
    assert image.dtype == np.uint8
    assert image[4, 5].tolist() == [100, 50, 200]
    assert (image[0, 0] < image[4, 5]).all()
    assert (canvas == 100).all()


def test_rain_and_noise_change_the_picture():
    light = dataclasses.replace(
        draw_light(np.random.default_rng(0), hard=False), noise=5.0, blur=0.5, rain=True
    )
    image = develop(np.full((40, 50, 3), 100, np.float32), light, np.random.default_rng(0))
    assert image.std() > 3
