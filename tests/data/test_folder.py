import os

import numpy as np
import pytest
from PIL import Image

from pixelcontrast.data.catalog import open_dataset
from pixelcontrast.data.checks import check_dataset
from pixelcontrast.data.problems import problem_lines


def codes(dataset):
    return [problem.code for problem in dataset.problems]


def find(dataset, code):
    return [problem for problem in dataset.problems if problem.code == code]


def test_the_contract(draw, ids_mask):
    root = draw(
        {"a": ids_mask(0, 1), "city/b.c": ids_mask(1), "no_mask": None},
        yaml="classes: [road, car]",
        splits={"train": ["a", "no_mask"], "val": ["city/b.c"]},
        suffix=".JPG",
    )
    (root / "images" / ".hidden.jpg").touch()
    (root / "images" / "notes.txt").touch()
    dataset = open_dataset(root)
    assert dataset.info.classes == ("road", "car")
    assert dataset.info.name == "set"
    assert [s.id for s in dataset.samples] == ["a", "no_mask", "city/b.c"]
    by_id = {s.id: s for s in dataset.samples}
    assert by_id["city/b.c"].mask == root / "masks" / "city" / "b.c.png"
    assert by_id["no_mask"].mask is None
    assert dataset.splits == {
        "train": ("a", "no_mask"),
        "val": ("city/b.c",),
        "labeled": ("a",),
        "unlabeled": ("no_mask",),
    }
    assert dataset.problems == ()


def test_classes_are_inferred(draw, ids_mask):
    dataset = open_dataset(draw({"a": ids_mask(0, 1), "b": ids_mask(3, 255), "c": ids_mask(0)}))
    assert dataset.info.classes == ("class_0", "class_1", "class_2", "class_3")
    assert codes(dataset) == ["classes-inferred", "no-val-split"]


def test_a_description_without_classes_still_infers(draw, ids_mask):
    root = draw({"a": ids_mask(0, 1)}, yaml="name: mine\nignore_index: 200")
    info = open_dataset(root).info
    assert (info.name, info.classes, info.ignore_index) == ("mine", ("class_0", "class_1"), 200)


def test_sparse_values_are_no_ids(draw, ids_mask):
    dataset = open_dataset(draw({"a": ids_mask(0, 38), "b": ids_mask(75)}), strict=False)
    (problem,) = find(dataset, "sparse-values")
    assert problem.severity == "error"
    assert "label_map: {0: class_0, 38: class_1, 75: class_2}" in problem.fix


def test_a_stray_value_is_told_with_its_files_and_made_no_class(draw, ids_mask):
    masks = {f"m{i}": ids_mask(0, 1, 2, 3, 4) for i in range(8)}
    root = draw({**masks, "odd": ids_mask(0, 37)})
    report = check_dataset(open_dataset(root, strict=False))
    assert [(p.code, p.file) for p in report.errors] == [
        ("sparse-values", str(root / "masks" / "odd.png"))
    ]
    assert "class-absent" not in {p.code for p in report.problems}
    (problem,) = report.errors
    assert "holds the value 37" in problem.message
    assert all(word in problem.fix for word in ("fault", "ignored", "a class"))
    (root / "dataset.yaml").write_text(problem.fix.partition(":\n")[2])
    dataset = open_dataset(root)
    assert dataset.info.num_classes == 5
    assert check_dataset(dataset).ok


def test_of_many_stray_files_three_are_named(draw, ids_mask):
    masks = {f"m{i:03}": ids_mask(0, 1, 2, 3, 4) for i in range(95)}
    masks |= {f"odd{i}": ids_mask(0, 37 + i % 2) for i in range(5)}
    dataset = open_dataset(draw(masks), strict=False)
    lines = problem_lines(find(dataset, "sparse-values"))
    assert lines[0] == "error: sparse-values (5 times)"
    assert [name for name in masks if any(f"{name}.png" in line for line in lines)] == [
        "odd0", "odd1", "odd2",
    ]  # fmt: skip
    assert "2 more" in lines[4]


def test_duplicates(draw, ids_mask):
    root = draw({"a": ids_mask(0, 1)}, yaml="classes: [x, y]")
    Image.new("RGB", (48, 40)).save(root / "images" / "a.png")
    Image.new("L", (48, 40)).save(root / "masks" / "a.bmp")
    found = find(open_dataset(root, strict=False), "duplicate-id")
    assert {p.file for p in found} == {
        str(root / "images" / "a.png"),
        str(root / "masks" / "a.png"),
    }


def test_orphans(draw, ids_mask):
    root = draw({"a": ids_mask(0, 1), "b": ids_mask(0)}, yaml="classes: [x, y]")
    Image.new("L", (48, 40)).save(root / "masks" / "lost.png")
    (problem,) = find(open_dataset(root), "orphan-mask")
    assert problem.severity == "warning"
    assert problem.file.endswith("lost.png")


def test_a_common_ending_of_mask_names_is_pointed_out(draw, ids_mask):
    root = draw({"a": ids_mask(0, 1), "ab": ids_mask(0)}, yaml="classes: [x, y]")
    for path in (root / "masks").iterdir():
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    (problem,) = find(open_dataset(root, strict=False), "orphan-mask")
    assert problem.severity == "error"
    assert "none of the 2 masks" in problem.message
    assert "'_mask'" in problem.fix


def test_linked_folders_are_followed(draw, ids_mask, tmp_path):
    elsewhere = draw({"a": ids_mask(0, 1)}, root=tmp_path / "elsewhere")
    root = tmp_path / "linked"
    (root / "images").mkdir(parents=True)
    try:
        os.symlink(elsewhere / "images", root / "images" / "sub", target_is_directory=True)
    except OSError:
        pytest.skip("no symbolic links here")
    assert [s.id for s in open_dataset(root).samples] == ["sub/a"]


def test_split_folders(draw, ids_mask):
    masks = {"train/a": ids_mask(0, 1), "val/b": ids_mask(0, 1), "train/c": None}
    root = draw(masks, yaml="classes: [x, y]")
    dataset = open_dataset(root)
    assert dataset.splits["train"] == ("train/a", "train/c")
    assert dataset.splits["val"] == ("val/b",)
    assert dataset.problems == ()
    # Files go before folders, and one image elsewhere means that folders are no splits.
    draw({}, splits={"val": ["train/a"]}, root=root)
    assert open_dataset(root).splits["val"] == ("train/a",)
    (root / "splits" / "val.txt").unlink()
    draw({"d": None}, root=root)
    assert find(open_dataset(root), "no-val-split")


def test_masks_under_another_name_are_pointed_out(draw, ids_mask):
    root = draw({"a": ids_mask(0, 1)})
    (root / "masks").rename(root / "labels")
    (root / "empty").mkdir()
    (problem,) = open_dataset(root).problems
    assert problem.code == "unused-folder"
    assert problem.file == str(root / "labels")


def test_plain_images(tmp_path):
    for name in ("x.png", "sub/y.tif"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(path)
    dataset = open_dataset(tmp_path)
    assert [s.id for s in dataset.samples] == ["x", "sub/y"]
    assert dataset.info.num_classes == 0
    assert dataset.splits == {"train": ("x", "sub/y"), "unlabeled": ("x", "sub/y")}


def test_a_new_labelled_list_sets_aside_the_old_unlabelled_one(draw, ids_mask):
    root = draw(
        {i: ids_mask(0, 1) for i in "abcd"},
        yaml="classes: [x, y]",
        splits={"val": ["d"], "labeled": ["a"], "unlabeled": ["b", "c"]},
    )
    dataset = open_dataset(root, splits={"labeled": ["b"]})
    assert dataset.splits["labeled"] == ("b",)
    assert dataset.splits["unlabeled"] == ("a", "c")
