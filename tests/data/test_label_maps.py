import numpy as np
import pytest

from pixelcontrast.core.errors import CheckpointError
from pixelcontrast.data.label_maps import LabelMaps

IDS = ["b", "a/1", "c"]


def finished(folder, ids=IDS):
    maps = LabelMaps(folder, ids, (2, 3), {"view1": 5, "fine": 300})
    maps.create()
    for k, name in enumerate(IDS):
        maps.write("view1", [name], np.full((1, 2, 3), k))
    maps.write("fine", IDS, np.arange(18).reshape(3, 2, 3) + 280)
    maps.flush()
    maps.seal("network 1", {"counts": {"view1": [6, 6, 6]}})
    return maps


def test_labels_belong_to_images_whatever_their_order(tmp_path):
    finished(tmp_path)
    maps = LabelMaps(tmp_path, IDS[::-1], (2, 3), {"view1": 5, "fine": 300})
    assert maps.opened("network 1")["counts"] == {"view1": [6, 6, 6]}
    assert maps.read("view1", ["c", "b"])[:, 0, 0].tolist() == [2, 0]
    assert maps.read("fine", ["a/1"]).max() == 280 + 11
    assert np.load(tmp_path / "view1.npy", mmap_mode="r").dtype == np.uint8
    assert np.load(tmp_path / "fine.npy", mmap_mode="r").dtype == np.int16


def test_labels_of_another_network_or_of_other_images_are_refused(tmp_path):
    maps = finished(tmp_path)
    with pytest.raises(CheckpointError, match="other weights"):
        maps.opened("network 2")
    with pytest.raises(CheckpointError, match="damaged"):
        LabelMaps(tmp_path, ["b", "a/1", "d"], (2, 3), maps.labels).opened("network 1")


def test_damaged_and_unfinished_labels_are_refused(tmp_path):
    maps = finished(tmp_path)
    with (tmp_path / "view1.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x09")
    with pytest.raises(CheckpointError, match="damaged"):
        maps.opened("network 1")
    maps.create()
    with pytest.raises(CheckpointError, match="incomplete"):
        maps.opened("network 1")
