import pytest

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.data import published
from pixelcontrast.data.published import full_name, published_list, published_lists
from pixelcontrast.data.splits import split_hash

COUNTS = {
    "u2pl/voc": {"classic_92": 92, "classic_183": 183, "classic_366": 366, "classic_732": 732,
                 "classic_1464": 1464, "blender_662": 662, "blender_1323": 1323,
                 "blender_2646": 2646, "blender_5291": 5291, "val": 1449},
    "u2pl/cityscapes": {"1_16": 186, "1_8": 372, "1_4": 744, "1_2": 1488, "val": 500},
    "unimatch/voc": {"1_16": 662, "1_8": 1323, "1_4": 2646, "train_aug": 10582},
    "unimatch/cityscapes": {"1_30": 100, "1_16": 186, "1_8": 372, "1_4": 744, "1_2": 1488,
                            "train": 2975},
    "unimatch/coco": {"1_512": 232, "1_256": 463, "1_128": 925, "1_64": 1849, "1_32": 3697,
                      "val": 5000},
    "unimatch/ade20k": {"1_64": 316, "1_32": 631, "1_16": 1263, "1_8": 2526, "1_4": 5052,
                        "1_2": 10105},
}  # fmt: skip


def test_every_list_has_its_published_length_and_hash():
    expected = {f"{home}/{name}": n for home, lists in COUNTS.items() for name, n in lists.items()}
    assert {one.name: one.count for one in published_lists().values()} == expected
    for one in published_lists().values():
        ids = published_list(one.name)
        assert len(ids) == len(set(ids)) == one.count
        assert split_hash(ids) == one.sha256


def test_known_relations():
    aug, val = set(published_list("unimatch/voc/train_aug")), set(published_list("u2pl/voc/val"))
    fine = set(published_list("u2pl/voc/classic_1464"))
    assert not aug & val
    for count in (662, 1323):
        assert set(published_list(f"u2pl/voc/blender_{count}")) <= fine
    for count in (2646, 5291):
        assert fine <= set(published_list(f"u2pl/voc/blender_{count}")) <= aug
    shared = len(fine & set(published_list("unimatch/voc/1_16")))
    assert shared == 93
    ours, theirs = published_list("u2pl/cityscapes/1_8"), published_list("unimatch/cityscapes/1_8")
    assert len(set(ours) & set(theirs)) == 48
    assert set(ours) | set(theirs) <= set(published_list("unimatch/cityscapes/train"))


def test_short_names():
    assert full_name("u2pl/voc/classic_92", "voc") == "u2pl/voc/classic_92"
    assert full_name("classic_92", "voc") == "u2pl/voc/classic_92"
    assert full_name("1_8", "ade20k") == "unimatch/ade20k/1_8"
    with pytest.raises(ConfigError, match="u2pl/cityscapes/1_8 or unimatch/cityscapes/1_8"):
        full_name("1_8", "cityscapes")
    with pytest.raises(ConfigError, match="published for coco: unimatch/coco/1_512"):
        full_name("1_7", "coco")
    with pytest.raises(ConfigError, match="no split and no published list"):
        full_name("few", "my_folder")


def test_unknown_list():
    with pytest.raises(ConfigError, match="did you mean 'u2pl/voc/classic_92'"):
        published_list("u2pl/voc/classic_91")


def test_a_damaged_file_is_refused(monkeypatch):
    ids = published_list("u2pl/voc/classic_92")
    monkeypatch.setattr(published, "_family", lambda _: {"u2pl/voc/classic_92": ids[1:]})
    with pytest.raises(DataError, match="differs from the one that was published"):
        published_list("u2pl/voc/classic_92")
