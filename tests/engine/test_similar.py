from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.engine.predict import Predictor
from pixelcontrast.engine.similar import encircled, find_similar, write_similar
from pixelcontrast.evaluation import InferenceConfig

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


class Colours(torch.nn.Module):
    """Features are the colours of cells of 4 x 4 pixels."""

    def forward(self, image):
        return SimpleNamespace(features=F.avg_pool2d(image.float(), 4))


@pytest.fixture
def predictor():
    metadata = {"classes": ("a",), "palette": [(0, 0, 0)]}
    return Predictor(Colours(), metadata, device="cpu", inference=InferenceConfig())


def painted(path, size, patches):
    """A blue image with patches (row, column, colour) of 4 x 4."""
    pixels = np.full((*size, 3), BLUE, np.uint8)
    for row, column, colour in patches:
        pixels[row : row + 4, column : column + 4] = colour
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), pixels[..., ::-1])
    return path


@pytest.fixture
def query(tmp_path):
    return painted(tmp_path / "set" / "query.png", (16, 16), [(8, 4, RED)])


def test_the_most_similar_pixel_of_each_image_in_its_own_pixels(predictor, query, tmp_path):
    orange = painted(tmp_path / "set" / "orange.png", (8, 24), [(4, 16, (255, 140, 0))])
    red = painted(tmp_path / "set" / "red.png", (32, 16), [(20, 8, RED), (0, 0, GREEN)])
    blue = painted(tmp_path / "set" / "blue.png", (8, 8), [])
    found = find_similar(predictor, query, (9, 7), [tmp_path / "set"])
    assert [one.image for one in found] == [red, orange, blue]
    assert [(one.row, one.column) for one in found[:2]] == [(22, 10), (6, 18)]
    expected = [1.0, 255 / np.hypot(255, 140), 0.0]
    np.testing.assert_allclose([one.similarity for one in found], expected, atol=1e-6)
    assert len(find_similar(predictor, query, (9, 7), [tmp_path / "set"], count=1)) == 1


def test_places_that_cannot_be_pointed_at(predictor, query):
    for at in ((16, 0), (0, 16), (-1, 0)):
        with pytest.raises(ConfigError, match="outside of the image"):
            find_similar(predictor, query, at, [query.parent])
    with pytest.raises(ConfigError, match="count"):
        find_similar(predictor, query, (0, 0), [query.parent], count=0)
    with pytest.raises(DataError, match="no other image"):
        find_similar(predictor, query, (0, 0), [query])


def test_the_picture_shows_what_was_found(predictor, query, tmp_path):
    painted(tmp_path / "set" / "red.png", (32, 16), [(20, 8, RED)])
    found = find_similar(predictor, query, (9, 7), [tmp_path / "set"])
    write_similar(tmp_path / "out.png", query, (9, 7), found)
    assert cv2.imread(str(tmp_path / "out.png")).shape == (240, 2 * 244 - 4, 3)


def test_a_circle_leaves_the_pixel_itself_and_the_given_image():
    image = np.full((64, 64, 3), 90, np.uint8)
    marked = encircled(image, (20, 40))
    assert (image == 90).all()
    changed = np.argwhere((marked != 90).any(-1))
    assert np.abs(changed.mean(0) - (20, 40)).max() < 0.5
    assert (marked[20, 40] == 90).all()
