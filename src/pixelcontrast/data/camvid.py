"""CamVid (Brostow et al. 2009) in the two layouts it is distributed in.

* The SegNet tutorial: `train`, `val`, `test` with `trainannot`, ... and lists `train.txt`, ...;
  11 classes in grey masks, 11 is void.
* The original: `701_StillsRaw_full/*.png` and `LabeledApproved_full/*_L.png` in 32 colours,
  grouped to the 11 classes as Badrinarayanan et al. (SegNet, 2017) did.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from pixelcontrast.data.dataset import Colour, DatasetInfo, Sample, SegDataset
from pixelcontrast.data.folder import assemble
from pixelcontrast.data.official import partial_copy
from pixelcontrast.data.problems import Problem, warning
from pixelcontrast.data.reading import IMAGE_SUFFIXES
from pixelcontrast.data.splits import read_split

IGNORE = 255
VOID = 11
PUBLISHED = {"train": 367, "val": 101, "test": 233}
SPLITS = tuple(PUBLISHED)
RAW, LABELS = "701_StillsRaw_full", "LabeledApproved_full"

_NAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)")

_GROUPS: Mapping[str, Mapping[str, Colour]] = {
    "sky": {"Sky": (128, 128, 128)},
    "building": {
        "Building": (128, 0, 0),
        "Archway": (192, 0, 128),
        "Bridge": (0, 128, 64),
        "Tunnel": (64, 0, 64),
        "Wall": (64, 192, 0),
    },
    "pole": {"Column_Pole": (192, 192, 128), "TrafficCone": (0, 0, 64)},
    "road": {
        "Road": (128, 64, 128),
        "LaneMkgsDriv": (128, 0, 192),
        "LaneMkgsNonDriv": (192, 0, 64),
    },
    "pavement": {
        "Sidewalk": (0, 0, 192),
        "ParkingBlock": (64, 192, 128),
        "RoadShoulder": (128, 128, 192),
    },
    "tree": {"Tree": (128, 128, 0), "VegetationMisc": (192, 192, 0)},
    "sign": {
        "SignSymbol": (192, 128, 128),
        "Misc_Text": (128, 128, 64),
        "TrafficLight": (0, 64, 64),
    },
    "fence": {"Fence": (64, 64, 128)},
    "car": {
        "Car": (64, 0, 128),
        "SUVPickupTruck": (64, 128, 192),
        "Truck_Bus": (192, 128, 192),
        "Train": (192, 64, 128),
        "OtherMoving": (128, 64, 64),
    },
    "pedestrian": {
        "Pedestrian": (64, 64, 0),
        "Child": (192, 128, 64),
        "CartLuggagePram": (64, 0, 192),
        "Animal": (64, 128, 64),
    },
    "bicyclist": {"Bicyclist": (0, 128, 192), "MotorcycleScooter": (192, 0, 192)},
}

CLASSES = tuple(_GROUPS)
PALETTE = tuple(next(iter(colours.values())) for colours in _GROUPS.values())

TUTORIAL_INFO = DatasetInfo(
    name="camvid",
    classes=CLASSES,
    palette=PALETTE,
    ignore_index=IGNORE,
    label_map={**{i: i for i in range(len(CLASSES))}, VOID: IGNORE},
)
ORIGINAL_INFO = DatasetInfo(
    name="camvid",
    classes=CLASSES,
    palette=PALETTE,
    ignore_index=IGNORE,
    label_map={
        **{c: i for i, colours in enumerate(_GROUPS.values()) for c in colours.values()},
        (0, 0, 0): IGNORE,
    },
)


def is_tutorial_layout(root: Path) -> bool:
    """Whether `root` has the folders of the SegNet tutorial, with CamVid's file names."""
    folders = [root / name for name in SPLITS if (root / f"{name}annot").is_dir()]
    names = (path.name for folder in folders if folder.is_dir() for path in folder.iterdir())
    return any(_NAME.match(name) for name in names)


def is_original_layout(root: Path) -> bool:
    """Whether `root` has the folders of the original download."""
    return (root / RAW).is_dir() and (root / LABELS).is_dir()


def list_tutorial_layout(root: Path, splits: Mapping[str, tuple[str, ...]]) -> SegDataset:
    """CamVid in the layout of the SegNet tutorial.

    The lists may hold ids or pairs of image and mask paths; a missing list means all files.
    """
    samples: list[Sample] = []
    listed: dict[str, tuple[str, ...]] = {}
    files: dict[str, Path] = {}
    for split in SPLITS:
        found = [
            Sample(path.stem, path, _existing(root / f"{split}annot" / f"{path.stem}.png"))
            for path in _images(root / split)
        ]
        samples += found
        if (path := root / f"{split}.txt").exists():
            listed[split], files[split] = _ids(path), path
        elif found:
            listed[split] = tuple(sample.id for sample in found)
    problems = partial_copy(root, "camvid", tuple(samples), listed, PUBLISHED)
    return assemble(root, TUTORIAL_INFO, tuple(samples), listed, splits, problems, files)


def list_original_layout(root: Path, splits: Mapping[str, tuple[str, ...]]) -> SegDataset:
    """CamVid as published: 701 frames of 960 x 720 with masks in 32 colours.

    The download has no split. `train.txt`, `val.txt` and `test.txt` in `root` are used when
    present; otherwise `sequence_split`, which gives the 367 / 101 / 233 images of SegNet.
    """
    samples = tuple(
        Sample(path.stem, path, _existing(root / LABELS / f"{path.stem}_L.png"))
        for path in _images(root / RAW)
    )
    files = {split: path for split in SPLITS if (path := root / f"{split}.txt").exists()}
    listed = {split: _ids(path) for split, path in files.items()}
    problems: list[Problem] = []
    if not listed:
        by_rule: dict[str, list[str]] = {split: [] for split in SPLITS}
        for sample in samples:
            if split := sequence_split(sample.id):
                by_rule[split].append(sample.id)
        listed = {split: tuple(ids) for split, ids in by_rule.items() if ids}
        problems.append(
            warning(
                "split-by-rule", "no lists in the folder; train, val, test follow the sequences"
            )
        )
    problems += partial_copy(root, "camvid32", samples, listed, PUBLISHED)
    return assemble(root, ORIGINAL_INFO, samples, listed, splits, problems, files)


def sequence_split(name: str) -> str | None:
    """The SegNet split of a CamVid frame, from its sequence and number; None for other names.

    `test` is Seq05VD and the second half of 0001TP (from frame 8550), `val` the 15 Hz part of
    0016E5 (odd frames 7959 to 8159), `train` the rest.
    """
    match = _NAME.match(name)
    if match is None:
        return None
    sequence, frame = match[1], int(match[2])
    if sequence == "Seq05VD" or (sequence == "0001TP" and frame >= 8550):
        return "test"
    if sequence == "0016E5" and 7959 <= frame <= 8159 and frame % 2:
        return "val"
    return "train"


def _ids(path: Path) -> tuple[str, ...]:
    return tuple(Path(line.split()[0]).stem for line in read_split(path))


def _images(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in found if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != ".")


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None
