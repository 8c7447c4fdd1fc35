"""COCO (Lin et al. 2014) with 81 classes, and COCO-Stuff (Caesar et al. 2018) with 171 or 27.

* `coco`: `train2017`, `val2017` and `masks/<image>.png` with ids 0 (background) and 1..80, the
  form used with few labels (Yang et al. 2023);
* `coco_stuff`: the images of 2017 with `stuffthingmaps` (values 0..181, 255 for none);
* `coco_stuff10k`: `images`, `annotations/*.mat` (0 for none, 1..182) and `imageLists`;
* `coco_stuff27`: `coco_stuff` with 27 groups, as in unsupervised segmentation (Cho et al. 2021),
  on the lists `curated/<split>2017/Coco164kFull_Stuff_Coarse_7.txt` where they are present.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pixelcontrast.data.coco_names import (
    COARSE,
    FINE,
    FINE_TO_COARSE,
    THINGS,
    UNUSED,
    USED,
)
from pixelcontrast.data.dataset import DatasetInfo, Sample, SegDataset
from pixelcontrast.data.official import (
    Splits,
    complete,
    files_by_id,
    pair,
    voc_colours,
)
from pixelcontrast.data.problems import warning
from pixelcontrast.data.splits import read_split

_IGNORE = 255
_YEAR = {"train": "train2017", "val": "val2017"}
_CURATED = "Coco164kFull_Stuff_Coarse_7.txt"

PUBLISHED = {"train": 118_287, "val": 5000}
PUBLISHED10K = {"train": 9000, "val": 1000}
PUBLISHED_CURATED = {"train": 49_629, "val": 2175}

_OBJECTS = tuple(FINE[value] for value in USED if value < THINGS)
COCO = DatasetInfo("coco", ("background", *_OBJECTS), voc_colours(len(_OBJECTS) + 1), _IGNORE)
"""80 kinds of objects, and background."""


def _stuff(name: str, first: int) -> DatasetInfo:
    """171 classes; `first` is the stored value of the first of the 182 names."""
    return DatasetInfo(
        name=name,
        classes=tuple(FINE[value] for value in USED),
        palette=voc_colours(len(USED) + 1)[1:],
        ignore_index=_IGNORE,
        label_map={
            **({0: _IGNORE} if first else {}),
            **{value + first: _IGNORE for value in sorted(UNUSED)},
            **{value + first: place for place, value in enumerate(USED)},
        },
    )


STUFF = _stuff("coco_stuff", 0)
STUFF10K = _stuff("coco_stuff10k", 1)
STUFF27 = DatasetInfo(
    name="coco_stuff27",
    classes=COARSE,
    palette=voc_colours(len(COARSE) + 1)[1:],
    ignore_index=_IGNORE,
    label_map=dict(enumerate(FINE_TO_COARSE)),
)


def is_coco_layout(root: Path) -> bool:
    """Whether `root` has the images of 2017 and a folder `masks`."""
    return (root / "train2017").is_dir() and (root / "masks").is_dir()


def is_stuff_layout(root: Path) -> bool:
    """Whether `root` has the images of 2017 and the masks of COCO-Stuff."""
    return _image_folder(root) is not None and _stuff_folder(root) is not None


def is_stuff10k_layout(root: Path) -> bool:
    """Whether `root` has the folders of COCO-Stuff 10k."""
    return all((root / name).is_dir() for name in ("images", "annotations", "imageLists"))


def list_coco_layout(root: Path, splits: Splits) -> SegDataset:
    """COCO with 81 classes; ids are `000000000009`."""
    masks = files_by_id(root / "masks", ".png")
    return _list(root, root, dict.fromkeys(_YEAR, masks), COCO, splits)


def list_stuff_layout(root: Path, splits: Splits) -> SegDataset:
    """COCO-Stuff with 171 classes."""
    return _list(root, _image_folder(root) or root, _stuff_masks(root), STUFF, splits)


def list_stuff27_layout(root: Path, splits: Splits) -> SegDataset:
    """COCO-Stuff with 27 classes."""
    lists = {
        split: path
        for split, year in _YEAR.items()
        if (path := root / "curated" / year / _CURATED).is_file()
    }
    images, masks = _image_folder(root) or root, _stuff_masks(root)
    if lists:
        chosen = {split: read_split(path) for split, path in lists.items()}
        return _list(root, images, masks, STUFF27, splits, chosen)
    dataset = _list(root, images, masks, STUFF27, splits)
    note = warning(
        "without-curated-lists",
        "all images are used; published scores are on 49,629 and 2,175 chosen ones",
        file=root,
        fix=f"put the lists at curated/train2017/{_CURATED} and curated/val2017/{_CURATED}",
    )
    return replace(dataset, problems=(*dataset.problems, note))


def list_stuff10k_layout(root: Path, splits: Splits) -> SegDataset:
    """COCO-Stuff 10k; ids are `COCO_train2014_000000000077`, `val` is the published test list."""
    samples = pair(files_by_id(root / "images", ".jpg"), files_by_id(root / "annotations", ".mat"))
    files = {"train": root / "imageLists" / "train.txt", "val": root / "imageLists" / "test.txt"}
    listed = {split: read_split(path) for split, path in files.items() if path.is_file()}
    return complete(root, STUFF10K, samples, listed, splits, PUBLISHED10K)


def _list(
    root: Path,
    images: Path,
    masks: Mapping[str, Mapping[str, Path]],
    info: DatasetInfo,
    replaced: Splits,
    chosen: Splits | None = None,
) -> SegDataset:
    """The images of 2017 with masks; `chosen` lists some of them."""
    samples: list[Sample] = []
    listed: dict[str, tuple[str, ...]] = {}
    for split, year in _YEAR.items():
        files = files_by_id(images / year, ".jpg")
        if chosen is not None:
            wanted = set(chosen.get(split, ()))
            files = {name: path for name, path in files.items() if name in wanted}
        samples += pair(files, masks[split])
        if files:
            listed[split] = tuple(files)
    published = PUBLISHED if chosen is None else PUBLISHED_CURATED
    return complete(root, info, tuple(samples), listed, replaced, published)


def _image_folder(root: Path) -> Path | None:
    places = (root, root / "images")
    return next((place for place in places if (place / "train2017").is_dir()), None)


def _stuff_folder(root: Path) -> Path | None:
    places = (root / "stuffthingmaps", root / "annotations")
    return next((place for place in places if (place / "train2017").is_dir()), None)


def _stuff_masks(root: Path) -> dict[str, dict[str, Path]]:
    folder = _stuff_folder(root) or root / "stuffthingmaps"
    return {split: files_by_id(folder / year, ".png") for split, year in _YEAR.items()}
