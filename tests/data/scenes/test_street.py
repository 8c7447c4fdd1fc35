import numpy as np

from pixelcontrast.data.scenes.street import render_street
from pixelcontrast.data.scenes.things import ROAD, SKY


def test_the_sky_is_above_and_the_road_below():
    for seed in range(12):
        _, mask = render_street(np.random.default_rng(seed), (64, 96), hard=False)
        rows = np.arange(64)[:, None]
        sky, road = mask == SKY, mask == ROAD
        assert road[45:].mean() > 0.2
        assert not sky[45:].any()
        if sky.any():
            assert (rows * sky).sum() / sky.sum() < (rows * road).sum() / road.sum()


def test_every_size_shows_the_same_street():
    for seed in range(6):
        _, small = render_street(np.random.default_rng(seed), (60, 80), hard=False)
        _, large = render_street(np.random.default_rng(seed), (180, 240), hard=False)
        assert (small == large[1::3, 1::3]).mean() > 0.95
