from pixelcontrast.data.dataset import DatasetInfo, Sample
from pixelcontrast.data.official import complete, files_by_id, pair, voc_colours


def test_the_colour_map_of_voc():
    published = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128),
                 (0, 128, 128), (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0),
                 (192, 128, 0), (64, 0, 128), (192, 0, 128), (64, 128, 128), (192, 128, 128),
                 (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128)]  # fmt: skip
    assert list(voc_colours(21)) == published
    assert len(set(voc_colours(256))) == 256
    assert voc_colours(256)[255] == (224, 224, 192)


def test_files_by_id(tmp_path):
    for name in ("b/x_img.png", "a/y_img.png", "a/y_other.png", ".c_img.png", "z_img.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert files_by_id(tmp_path, "_img.png") == {"z": tmp_path / "z_img.png"}
    deep = files_by_id(tmp_path, "_img.png", depth=2)
    assert list(deep.items()) == [
        ("a/y", tmp_path / "a" / "y_img.png"), ("b/x", tmp_path / "b" / "x_img.png"),
    ]  # fmt: skip
    assert files_by_id(tmp_path / "none", ".png") == files_by_id(None, ".png") == {}


def test_pairs_need_no_mask(tmp_path):
    image, mask = tmp_path / "a.jpg", tmp_path / "a.png"
    assert pair({"a": image, "b": image}, {"a": mask, "c": mask}, {"b": mask}) == (
        Sample("a", image, mask), Sample("b", image, None, mask),
    )  # fmt: skip


def opened(tmp_path, published, listed, masked=("a", "b")):
    samples = [Sample(i, tmp_path / i, tmp_path / i if i in masked else None) for i in "abc"]
    info = DatasetInfo("set", ("x", "y"))
    return complete(tmp_path, info, tuple(samples), listed, {}, published)


def test_a_whole_copy_is_silent(tmp_path):
    dataset = opened(tmp_path, {"train": 1, "val": 1}, {"train": ("a",), "val": ("b",)})
    assert dataset.problems == ()
    assert dataset.splits["unlabeled"] == ("c",)


def test_a_partial_copy_is_named_and_not_refused(tmp_path):
    published = {"train": 2000, "val": 1}
    listed = {"train": ("a", "c", "gone"), "val": ("b",)}
    dataset = opened(tmp_path, published, listed)
    assert dataset.splits["train"] == ("a", "c")
    (problem,) = dataset.problems
    assert (problem.severity, problem.code) == ("warning", "partial-copy")
    assert "train has 2 of 2,000 images; 1 images of train lack their masks" in problem.message
    assert "val has" not in problem.message
    assert dataset.splits["labeled"] == ("a",)
