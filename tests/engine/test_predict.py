import numpy as np
import pytest

from pixelcontrast.core.errors import DataError
from pixelcontrast.engine.predict import Prediction, find_images


def prediction():
    mask = np.array([[0, 0, 1], [0, 2, 2]], np.uint8)
    return Prediction(
        image=np.full((2, 3, 3), 100, np.uint8),
        mask=mask,
        confidence=np.full((2, 3), 0.5, np.float32),
        names=("a", "b", "c", "d"),
        palette=((10, 0, 0), (0, 20, 0), (0, 0, 30), (1, 1, 1)),
    )


def test_shares_are_sorted_and_leave_absent_classes_out():
    assert prediction().shares() == {"a": 0.5, "c": pytest.approx(1 / 3), "b": pytest.approx(1 / 6)}


def test_colours_follow_the_palette():
    colour = prediction().colour()
    assert colour[0, 2].tolist() == [0, 20, 0]
    assert prediction().overlay(0.5)[0, 0].tolist() == [55, 50, 50]
    assert prediction().overlay(0.0).tolist() == prediction().image.tolist()


def test_written_pictures_read_back(tmp_path):
    from PIL import Image

    written = prediction().write(tmp_path, "deep/x")
    assert len(written) == 4
    ids = np.array(Image.open(tmp_path / "ids" / "deep" / "x.png"))
    assert ids.tolist() == prediction().mask.tolist()
    assert Image.open(tmp_path / "colour" / "deep" / "x.png").mode == "P"
    overlay = np.array(Image.open(tmp_path / "overlay" / "deep" / "x.png"))
    assert overlay.tolist() == prediction().overlay().tolist()


def test_names_stay_distinct(tmp_path):
    for name in ("a.png", "a.jpg", "b.png", "deep/a.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [name for _, name in find_images([tmp_path])]
    assert sorted(names) == ["a_jpg", "a_png", "b", "deep/a"]


def test_missing_and_empty_places_are_named(tmp_path):
    with pytest.raises(DataError, match="no such image"):
        find_images([tmp_path / "no"])
    with pytest.raises(DataError, match="no images found"):
        find_images([tmp_path])
