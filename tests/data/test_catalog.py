import pytest

from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.data.catalog import DATASETS, open_dataset, recognise, refuse_unreadable
from pixelcontrast.data.table import DATASET_SUMMARIES


def test_every_layout_has_a_line():
    assert list(DATASETS) == list(DATASET_SUMMARIES)
    assert all(DATASETS[name].about == line for name, line in DATASET_SUMMARIES.items())


def test_missing_folder(tmp_path):
    for name in ("auto", "folder", "camvid"):
        with pytest.raises(DataError, match="does not exist"):
            open_dataset(tmp_path / "none", name)


def test_unknown_layout_says_what_was_looked_for(tmp_path):
    (tmp_path / "JPGs").mkdir()
    with pytest.raises(DataError) as caught:
        recognise(tmp_path)
    text = str(caught.value)
    assert "it holds JPGs" in text
    assert all(name in text for name in DATASETS)
    assert "images/ with optional masks/" in text


def test_unknown_name(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'camvid'"):
        open_dataset(tmp_path, "camvit")


def test_names_and_the_description_are_judged_without_reading_a_mask(draw, ids_mask):
    root = draw({"a": ids_mask(0, 1)}, yaml="classes: [x, y]")
    (root / "masks" / "a.png").write_bytes(b"no picture")
    refuse_unreadable(root)
    (root / "dataset.yaml").write_text("klasses: [x, y]")
    with pytest.raises(DataError, match="unknown key 'klasses'"):
        refuse_unreadable(root)
    refuse_unreadable(root, "camvid")  # the description of other layouts is not this file


def test_no_images(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="no images found"):
        open_dataset(tmp_path)


def test_strict_raises_all_listing_errors_at_once(draw, ids_mask):
    root = draw(
        {"a": ids_mask(0, 1), "b": ids_mask(0)},
        yaml="classes: [x, y]",
        splits={"train": ["a", "q"], "val": ["b", "r"]},
    )
    with pytest.raises(DataError, match="2 problems") as caught:
        open_dataset(root)
    assert "'q'" in str(caught.value)
    assert "'r'" in str(caught.value)
    relaxed = open_dataset(root, strict=False)
    assert relaxed.splits["train"] == ("a",)


def test_splits_can_be_given_as_ids_or_files(draw, ids_mask, tmp_path):
    root = draw({i: ids_mask(0, 1) for i in "abcd"}, yaml="classes: [x, y]")
    (root / "few.txt").write_text("a\n")
    (root / "splits" / "1_8").mkdir(parents=True)
    (root / "splits" / "1_8" / "labeled.txt").write_text("b\n")
    (tmp_path / "own.txt").write_text("c\n")
    for given, expected in (
        (["d"], ("d",)),
        ("few.txt", ("a",)),
        ("1_8/labeled.txt", ("b",)),
        (tmp_path / "own.txt", ("c",)),
    ):
        assert open_dataset(root, splits={"labeled": given}).splits["labeled"] == expected
    with pytest.raises(DataError, match=r"no split file 'nope\.txt'"):
        open_dataset(root, splits={"labeled": "nope.txt"})
    with pytest.raises(DataError, match="split-unknown-id"):
        open_dataset(root, splits={"labeled": ["zz"]})
