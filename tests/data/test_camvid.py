import numpy as np
import pytest
from PIL import Image

from pixelcontrast.data.camvid import CLASSES, ORIGINAL_INFO, PALETTE, sequence_split
from pixelcontrast.data.catalog import open_dataset, recognise
from pixelcontrast.data.checks import check_dataset
from pixelcontrast.data.reading import read_mask

FRAMES = {
    "train": ("0001TP_006690", "0006R0_f00930", "0016E5_00390"),
    "val": ("0016E5_07959",),
    "test": ("0001TP_008550", "Seq05VD_f00000"),
}


def tutorial(root, suffix, lines):
    """A miniature in the layout of the SegNet tutorial."""
    mask = np.arange(12, dtype=np.uint8).repeat(4)[None].repeat(36, 0)
    for split, names in FRAMES.items():
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for name in names:
            Image.new("RGB", (48, 36)).save(root / split / f"{name}{suffix}")
            Image.fromarray(mask).save(root / f"{split}annot" / f"{name}.png")
        if lines:
            text = "\n".join(lines.format(split=split, name=name) for name in names)
            (root / f"{split}.txt").write_text(text)
    return root


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize(
    "lines",
    ["{name}", "/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png", None],
)
def test_tutorial_layout(tmp_path, suffix, lines):
    root = tutorial(tmp_path / "cam", suffix, lines)
    assert recognise(root) == "camvid"
    dataset = open_dataset(root)
    assert {name: dataset.splits[name] for name in FRAMES} == FRAMES
    assert dataset.splits["labeled"] == FRAMES["train"]
    assert dataset.info.classes == CLASSES
    mask = read_mask(dataset.samples[0].mask, dataset.info)
    assert mask[0, ::4].tolist() == [*range(11), 255]
    assert check_dataset(dataset).ok


def test_test_masks_may_be_missing(tmp_path):
    root = tutorial(tmp_path, ".png", "{name}")
    for path in (root / "testannot").iterdir():
        path.unlink()
    dataset = open_dataset(root)
    assert all(s.mask is None for s in dataset.select("test"))


def test_other_data_in_the_same_folders_is_not_camvid(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "trainannot").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "train" / "mine.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "loose.png")
    assert recognise(tmp_path) == "images"


def original(root):
    """A miniature of the original download, with all 32 colours in each mask."""
    colours = np.array(list(ORIGINAL_INFO.label_map), np.uint8)
    assert len(colours) == 32
    for names in FRAMES.values():
        for name in names:
            for folder, tail in (("701_StillsRaw_full", ""), ("LabeledApproved_full", "_L")):
                (root / folder).mkdir(parents=True, exist_ok=True)
                picture = Image.fromarray(np.broadcast_to(colours, (36, 32, 3)).copy())
                picture.save(root / folder / f"{name}{tail}.png")
    return root


def test_original_layout(tmp_path):
    root = original(tmp_path / "cam")
    assert recognise(root) == "camvid32"
    dataset = open_dataset(root)
    assert {name: dataset.splits[name] for name in FRAMES} == FRAMES
    assert [p.code for p in dataset.problems] == ["split-by-rule", "partial-copy"]
    mask = read_mask(dataset.samples[0].mask, dataset.info)
    grouped = np.bincount(mask[0], minlength=256)[:11]
    assert grouped.tolist() == [1, 5, 2, 3, 3, 2, 3, 1, 5, 4, 2]
    assert (mask[0] == 255).sum() == 1
    assert check_dataset(dataset).ok


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((128, 128, 128), "sky"),
        ((64, 192, 0), "building"),
        ((0, 0, 64), "pole"),
        ((128, 0, 192), "road"),
        ((128, 128, 192), "pavement"),
        ((192, 192, 0), "tree"),
        ((0, 64, 64), "sign"),
        ((64, 64, 128), "fence"),
        ((192, 128, 192), "car"),
        ((64, 0, 192), "pedestrian"),
        ((192, 0, 192), "bicyclist"),
    ],
)
def test_published_grouping(colour, name):
    assert ORIGINAL_INFO.label_map[colour] == CLASSES.index(name)
    assert len(PALETTE) == len(set(PALETTE)) == 11


def test_lists_beside_the_original_are_used(tmp_path):
    root = original(tmp_path)
    (root / "train.txt").write_text("0016E5_07959\n")
    (root / "val.txt").write_text("0001TP_006690.png\n")
    dataset = open_dataset(root)
    assert dataset.splits["train"] == ("0016E5_07959",)
    assert dataset.splits["val"] == ("0001TP_006690",)
    assert "test" not in dataset.splits


def test_a_foreign_name_is_in_no_split():
    assert sequence_split("holiday") is None


def test_real_camvid(real_camvid):
    dataset = open_dataset(real_camvid)
    counts = {name: len(ids) for name, ids in dataset.splits.items()}
    assert counts == {"train": 367, "val": 101, "test": 233, "labeled": 367}
    for split in FRAMES:
        assert {sequence_split(i) for i in dataset.splits[split]} == {split}
    report = check_dataset(dataset)
    assert report.problems == ()
    assert report.stats.rare == ("pedestrian", "bicyclist")
    assert report.stats.sizes == ((360, 480, 701),)
