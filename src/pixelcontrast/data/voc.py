"""PASCAL VOC 2012 (Everingham et al. 2010) with the masks of SBD (Hariharan et al. 2011).

`VOC2012` holds `JPEGImages`, `SegmentationClass` and `ImageSets/Segmentation`. The 10,582 training
images of the literature ("train_aug") are the images that VOC or SBD label and that are not in
VOC's validation list. Their masks are looked for in

* `SegmentationClassAug`: PNG files of ids, the copy that circulates with the lists;
* SBD as published: `benchmark_RELEASE/dataset/cls/*.mat`, for images that VOC has no mask of.

Without either, `train` is VOC's own list of 1,464 images.
"""

from __future__ import annotations

from pathlib import Path

from pixelcontrast.data.dataset import DatasetInfo, SegDataset
from pixelcontrast.data.official import (
    Splits,
    complete,
    files_by_id,
    first_folder,
    pair,
    voc_colours,
)
from pixelcontrast.data.problems import warning
from pixelcontrast.data.published import published_list
from pixelcontrast.data.splits import read_split

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
INFO = DatasetInfo("voc", CLASSES, voc_colours(len(CLASSES)))
"""Ids 0..20 and 255 (void, along the outlines) are the indices of the palette files."""
PUBLISHED = {"train": 10_582, "val": 1449}
FINE = 1464
"""Training images that VOC labels itself."""

_SBD = Path("benchmark_RELEASE", "dataset", "cls")


def is_voc_layout(root: Path) -> bool:
    """Whether `root`, or `VOCdevkit/VOC2012` in it, has the folders of VOC with masks."""
    home = _home(root)
    return (home / "JPEGImages").is_dir() and any(
        (home / name).is_dir() for name in ("SegmentationClass", "SegmentationClassAug")
    )


def list_voc_layout(root: Path, splits: Splits) -> SegDataset:
    """VOC 2012 with the masks of SBD where they are present."""
    home = _home(root)
    sbd = first_folder(
        *(place / _SBD for place in (home, root, root / "SBD", home.parent, home.parent.parent))
    )
    masks = {
        **files_by_id(sbd, ".mat"),
        **files_by_id(home / "SegmentationClass", ".png"),
        **files_by_id(home / "SegmentationClassAug", ".png"),
    }
    lists = home / "ImageSets" / "Segmentation"
    val = _official(lists / "val.txt", "u2pl/voc/val")
    fine = _official(lists / "train.txt", "u2pl/voc/classic_1464")
    train = published_list("unimatch/voc/train_aug")
    problems = []
    if not (masks.keys() & set(train)) - set(fine):
        train = fine
        message = f"no masks of SBD: train is the {FINE:,} images that VOC labels itself"
        problems.append(warning("without-sbd", message, file=home))
    wanted = {*train, *val}
    images = {i: p for i, p in files_by_id(home / "JPEGImages", ".jpg").items() if i in wanted}
    return complete(
        root,
        INFO,
        pair(images, masks),
        {"train": train, "val": val},
        splits,
        PUBLISHED,
        tuple(problems),
    )


def _home(root: Path) -> Path:
    return first_folder(root / "VOCdevkit" / "VOC2012", root / "VOC2012") or root


def _official(path: Path, name: str) -> tuple[str, ...]:
    """The ids in a list of VOC, from the published list where the file is missing."""
    return read_split(path) if path.is_file() else published_list(name)
