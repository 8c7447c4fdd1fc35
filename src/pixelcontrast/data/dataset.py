"""What a data set is: class names and colours, images with optional masks, named splits."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pixelcontrast.core.errors import DataError, did_you_mean
from pixelcontrast.data.problems import Problem

Colour = tuple[int, int, int]

MAX_CLASSES = 254
"""Ids are uint8, and one value stays free beside the ignore index to mark undeclared pixels."""


def default_palette(count: int) -> tuple[Colour, ...]:
    """`count` distinct colours, always the same: hues by the golden angle, three brightnesses."""
    colours: list[Colour] = []
    for i in range(count):
        hue = (0.58 + i * 0.618034) % 1.0
        saturation, value = ((0.62, 0.90), (0.80, 0.62), (0.40, 0.78))[i % 3]
        red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return tuple(colours)


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """Class names and how masks are stored.

    Args:
        name: short name of the data set.
        classes: names in the order of the ids 0, 1, ...; empty when nothing is labelled.
        palette: one RGB colour a class; generated when left empty.
        ignore_index: the id of pixels without a class, never an id of a class.
        label_map: stored value or RGB colour -> class id or `ignore_index`; None is the identity.
            With a map, a stored value outside it is undeclared, except `ignore_index` itself.

    Raises:
        DataError: when the parts contradict each other.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[Colour, ...] = ()
    ignore_index: int = 255
    label_map: Mapping[int | Colour, int] | None = None

    def __post_init__(self) -> None:
        where = f"description of data set {self.name!r}"
        count = len(self.classes)
        if count > MAX_CLASSES:
            raise DataError(f"{count} classes; at most {MAX_CLASSES} are possible", where=where)
        if len(set(self.classes)) != count:
            twice = sorted({c for c in self.classes if self.classes.count(c) > 1})
            raise DataError(f"class names occur twice: {', '.join(twice)}", where=where)
        if not self.palette:
            object.__setattr__(self, "palette", default_palette(count))
        if len(self.palette) != count:
            raise DataError(f"{len(self.palette)} colours for {count} classes", where=where)
        if not count <= self.ignore_index <= 255:
            raise DataError(
                f"ignore_index {self.ignore_index} is the id of a class or outside 0..255",
                where=where,
                fix="choose 255, and map stored values to 'ignore' in label_map",
            )
        for stored, target in (self.label_map or {}).items():
            if not (0 <= target < count or target == self.ignore_index):
                raise DataError(
                    f"label_map sends {stored} to {target}, which is no class id",
                    where=where,
                    fix=f"use 0..{count - 1} or {self.ignore_index}",
                )

    @property
    def num_classes(self) -> int:
        """How many classes there are, the ignored one not counted."""
        return len(self.classes)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, with its mask if it has one."""

    id: str
    """Path of the image below its folder, without suffix, with forward slashes."""
    image: Path
    mask: Path | None = None
    instances: Path | None = None
    """Map of instance ids in the encoding of Cityscapes, for its instance-weighted scores."""
    decoded: bool = False
    """The mask holds class ids whatever the data set's label map says: pseudo-labels do."""


@dataclass(frozen=True, slots=True)
class SegDataset:
    """A data set as it lies on disk; nothing is loaded."""

    info: DatasetInfo
    root: Path
    samples: tuple[Sample, ...]
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Split name -> ids. `labeled`: images with masks to learn from; `unlabeled`: the others."""
    problems: tuple[Problem, ...] = ()
    """What was noticed while the folder was listed; `check_dataset` adds to it."""

    def select(self, split: str) -> tuple[Sample, ...]:
        """The samples of `split`, in its order.

        Raises:
            DataError: when the split does not exist, is empty, or names images that do not exist.
        """
        if split not in self.splits:
            raise DataError(
                f"no split {split!r}", where=self.root, fix=did_you_mean(split, self.splits)
            )
        ids = self.splits[split]
        if not ids:
            raise DataError(
                f"split {split!r} is empty",
                where=self.root,
                fix=f"list one id a line in {self.root / 'splits' / f'{split}.txt'}",
            )
        by_id = {sample.id: sample for sample in self.samples}
        missing = [i for i in ids if i not in by_id]
        if missing:
            raise _unknown_ids(split, missing, by_id, self.root)
        return tuple(by_id[i] for i in ids)

    def with_splits(self, splits: Mapping[str, Iterable[str]]) -> SegDataset:
        """The same data with `splits` added or replaced.

        Raises:
            DataError: when a split names an image that does not exist.
        """
        known = {sample.id for sample in self.samples}
        added = {name: tuple(ids) for name, ids in splits.items()}
        for name, ids in added.items():
            missing = [i for i in ids if i not in known]
            if missing:
                raise _unknown_ids(name, missing, known, self.root)
        return replace(self, splits={**self.splits, **added})


def _unknown_ids(split: str, missing: list[str], known: Iterable[str], root: Path) -> DataError:
    shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    return DataError(
        f"split {split!r} names {len(missing)} images that do not exist: {shown}",
        where=root,
        fix=did_you_mean(missing[0], known),
    )
