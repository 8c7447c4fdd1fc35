"""PASCAL-Context (Mottaghi et al. 2014): whole-scene labels of VOC 2010.

The images are VOC 2010's `JPEGImages`. Masks are looked for in

* `trainval/*.mat`, as published: 459 labels, of which the 59 frequent ones are used. The lists
  are VOC 2010's `ImageSets/Main/train.txt` and `val.txt`;
* `SegmentationClassContext/*.png`: ids 0..59 with 0 for the rest, the form that circulates with
  the lists `ImageSets/SegmentationContext/train.txt` and `val.txt`.

Both give the same 60 ids. `pascal_context` ignores 0, `pascal_context60` has it as a class.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pixelcontrast.data.dataset import Colour, DatasetInfo, SegDataset
from pixelcontrast.data.official import (
    Splits,
    complete,
    files_by_id,
    first_folder,
    pair,
    voc_colours,
)
from pixelcontrast.data.splits import read_split

CLASSES = (
    "aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat", "book", "bottle",
    "building", "bus", "cabinet", "car", "cat", "ceiling", "chair", "cloth", "computer", "cow",
    "cup", "curtain", "dog", "door", "fence", "floor", "flower", "food", "grass", "ground",
    "horse", "keyboard", "light", "motorbike", "mountain", "mouse", "person", "plate", "platform",
    "pottedplant", "road", "rock", "sheep", "shelves", "sidewalk", "sign", "sky", "snow", "sofa",
    "table", "track", "train", "tree", "truck", "tvmonitor", "wall", "water", "window", "wood",
)  # fmt: skip
_OF_459 = (
    2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113,
    115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326,
    347, 349, 354, 355, 360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458,
)  # fmt: skip
"""Number of each class in `labels.txt` of the download."""
_LABELS = 459
_IGNORE = 255
_COLOURS = voc_colours(len(CLASSES) + 1)

PUBLISHED = {"train": 4998, "val": 5105}
INFO = DatasetInfo(
    name="pascal_context",
    classes=CLASSES,
    palette=_COLOURS[1:],
    ignore_index=_IGNORE,
    label_map={0: _IGNORE, **{place + 1: place for place in range(len(CLASSES))}},
)
"""59 classes, ids 1..59 in the PNG files."""
INFO60 = DatasetInfo("pascal_context60", ("background", *CLASSES), _COLOURS, _IGNORE)


def is_pascal_context_layout(root: Path) -> bool:
    """Whether `root`, or `VOCdevkit/VOC2010` in it, has VOC's images with labels of Context."""
    home = _home(root)
    return (home / "JPEGImages").is_dir() and _masks_folder(root) is not None


def list_pascal_context_layout(root: Path, splits: Splits) -> SegDataset:
    """PASCAL-Context with 59 classes, the rest ignored."""
    return _list(root, splits, INFO, rest=_IGNORE)


def list_pascal_context60_layout(root: Path, splits: Splits) -> SegDataset:
    """PASCAL-Context with 59 classes and background."""
    return _list(root, splits, INFO60, rest=0)


def _list(root: Path, splits: Splits, info: DatasetInfo, rest: int) -> SegDataset:
    home, folder = _home(root), _masks_folder(root)
    matlab = folder is not None and folder.name == "trainval"
    if matlab:
        first = info.classes.index(CLASSES[0])
        label_map: dict[int | Colour, int] = {value: rest for value in range(_LABELS + 1)}
        label_map.update({value: place + first for place, value in enumerate(_OF_459)})
        info = replace(info, label_map=label_map)
    masks = files_by_id(folder, ".mat" if matlab else ".png")
    images = {i: p for i, p in files_by_id(home / "JPEGImages", ".jpg").items() if i in masks}
    lists = home / "ImageSets"
    listed = {}
    for split in PUBLISHED:
        places = [lists / kind / f"{split}.txt" for kind in ("SegmentationContext", "Main")]
        if path := next((path for path in places if path.is_file()), None):
            listed[split] = read_split(path)
    return complete(root, info, pair(images, masks), listed, splits, PUBLISHED)


def _home(root: Path) -> Path:
    return first_folder(root / "VOCdevkit" / "VOC2010", root / "VOC2010") or root


def _masks_folder(root: Path) -> Path | None:
    home = _home(root)
    if (place := home / "SegmentationClassContext").is_dir():
        return place
    places = [home / "trainval", root / "trainval"]
    return next((p for p in places if p.is_dir() and next(p.glob("*.mat"), None)), None)
