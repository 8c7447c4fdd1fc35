import numpy as np
from tests.data.layouts import CITY, draw_cityscapes

from pixelcontrast.data.catalog import open_dataset, recognise
from pixelcontrast.data.checks import check_dataset
from pixelcontrast.data.cityscapes import INFO, INFO27
from pixelcontrast.data.reading import read_mask

TRAIN_IDS = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11,
             25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}  # fmt: skip


def test_layout(tmp_path):
    root = draw_cityscapes(tmp_path)
    assert recognise(root) == "cityscapes"
    dataset = open_dataset(root)
    assert {name: dataset.splits[name] for name in CITY} == CITY
    first = dataset.select("train")[0]
    assert first.instances.name == "aachen_000000_000019_gtFine_instanceIds.png"
    (test,) = dataset.select("test")
    assert test.mask is None
    assert "unlabeled" not in dataset.splits
    assert [p.code for p in dataset.problems] == ["partial-copy"]
    assert check_dataset(dataset).ok


def test_extra_images_are_a_split_of_their_own(tmp_path):
    root = draw_cityscapes(tmp_path)
    place = root / "leftImg8bit" / "train_extra" / "erlangen"
    place.mkdir(parents=True)
    (place / "erlangen_000000_000000_leftImg8bit.png").write_bytes(
        (root / "leftImg8bit/train" / f"{CITY['train'][0]}_leftImg8bit.png").read_bytes()
    )
    dataset = open_dataset(root)
    assert dataset.splits["train_extra"] == ("erlangen/erlangen_000000_000000",)
    assert dataset.splits["train"] == CITY["train"]


def test_label_ids_become_train_ids(tmp_path):
    dataset = open_dataset(draw_cityscapes(tmp_path))
    for stored in range(34):
        assert INFO.label_map[stored] == TRAIN_IDS.get(stored, 255)
    mask = read_mask(dataset.select("train")[0].mask, dataset.info)
    assert set(np.unique(mask)) == {*range(19), 255}
    assert INFO.classes[:3] == ("road", "sidewalk", "building")
    assert INFO.classes[16:] == ("train", "motorcycle", "bicycle")
    assert INFO.palette[18] == (119, 11, 32)


def test_27_classes(tmp_path):
    dataset = open_dataset(draw_cityscapes(tmp_path), "cityscapes27")
    mask = read_mask(dataset.select("train")[0].mask, dataset.info)
    assert set(np.unique(mask)) == {*range(27), 255}
    assert all(INFO27.label_map[stored] == stored - 7 for stored in range(7, 34))
    assert all(INFO27.label_map[stored] == 255 for stored in range(7))
    assert INFO27.classes[2] == "parking"
