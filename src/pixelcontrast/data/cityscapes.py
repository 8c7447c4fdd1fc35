"""Cityscapes (Cordts et al. 2016): `leftImg8bit` and `gtFine`, each with train, val and test.

Masks are read from `*_gtFine_labelIds.png`, so that no script has to be run first; the instance
ids of `*_gtFine_instanceIds.png` serve the instance-weighted scores.
"""

from __future__ import annotations

from pathlib import Path

from pixelcontrast.data.dataset import Colour, DatasetInfo, Sample, SegDataset
from pixelcontrast.data.official import Splits, complete, files_by_id, pair

_LABELS: tuple[tuple[str, int, Colour], ...] = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("parking", 9, (250, 170, 160)),
    ("rail track", 10, (230, 150, 140)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("guard rail", 14, (180, 165, 180)),
    ("bridge", 15, (150, 100, 100)),
    ("tunnel", 16, (150, 120, 90)),
    ("pole", 17, (153, 153, 153)),
    ("polegroup", 18, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("caravan", 29, (0, 0, 90)),
    ("trailer", 30, (0, 0, 110)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
"""Name, label id and colour of the labels 7..33; those below are void."""
_NOT_TRAINED = {9, 10, 14, 15, 16, 18, 29, 30}
"""Label ids of real classes that the benchmark of 19 classes ignores."""
_IGNORE = 255
_VOID: dict[int | Colour, int] = {value: _IGNORE for value in range(7)}

PUBLISHED = {"train": 2975, "val": 500}


def _info(name: str, left_out: set[int]) -> DatasetInfo:
    kept = [label for label in _LABELS if label[1] not in left_out]
    return DatasetInfo(
        name=name,
        classes=tuple(name for name, _, _ in kept),
        palette=tuple(colour for _, _, colour in kept),
        ignore_index=_IGNORE,
        label_map={
            **_VOID,
            **{value: _IGNORE for value in sorted(left_out)},
            **{value: place for place, (_, value, _) in enumerate(kept)},
        },
    )


INFO = _info("cityscapes", _NOT_TRAINED)
"""The 19 classes of the benchmark, in the order of its train ids."""
INFO27 = _info("cityscapes27", set())
"""All 27 labels that are not void, as in unsupervised segmentation (Cho et al. 2021)."""


def is_cityscapes_layout(root: Path) -> bool:
    """Whether `root` has the folders of the two downloads."""
    return (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir()


def list_cityscapes_layout(root: Path, splits: Splits) -> SegDataset:
    """Cityscapes with the 19 classes of the benchmark; ids are `aachen/aachen_000000_000019`."""
    return _list(root, splits, INFO)


def list_cityscapes27_layout(root: Path, splits: Splits) -> SegDataset:
    """Cityscapes with 27 classes."""
    return _list(root, splits, INFO27)


def _list(root: Path, splits: Splits, info: DatasetInfo) -> SegDataset:
    samples: list[Sample] = []
    listed: dict[str, tuple[str, ...]] = {}
    # The images of test and train_extra are offered too: methods may learn from them unlabelled.
    # The fine masks of test are placeholders, and those of train_extra are coarse.
    for split in ("train", "val", "test", "train_extra"):
        fine = root / "gtFine" / split
        labelled = split in PUBLISHED
        found = pair(
            files_by_id(root / "leftImg8bit" / split, "_leftImg8bit.png", depth=2),
            files_by_id(fine, "_gtFine_labelIds.png", depth=2) if labelled else {},
            files_by_id(fine, "_gtFine_instanceIds.png", depth=2) if labelled else {},
        )
        samples += found
        if found:
            listed[split] = tuple(sample.id for sample in found)
    return complete(root, info, tuple(samples), listed, splits, PUBLISHED)
