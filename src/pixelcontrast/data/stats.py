"""How often the classes occur, which are rare, and how large the images are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixelcontrast.data.dataset import SegDataset

RARE_SHARE = 0.1
"""A class is rare when it has less than this part of an even share of the labelled pixels, that is
less than 0.1 / C: 0.9 % for the 11 classes of CamVid, 0.07 % for 150 classes."""


@dataclass(frozen=True, slots=True)
class ClassStats:
    """One class in the labelled training images."""

    name: str
    pixels: int
    share: float
    """Of the labelled pixels, ignored ones not counted."""
    images: int
    rare: bool


@dataclass(frozen=True, slots=True)
class DatasetStats:
    """What `data info` shows."""

    name: str
    images: int
    labeled: int
    """Images with a mask."""
    unlabeled_share: float
    """Part of the images without a mask, 0..1."""
    splits: Mapping[str, int]
    classes: tuple[ClassStats, ...]
    """Counted on `counted`."""
    counted: str
    """The split the classes were counted on, or `all masks`."""
    ignored_share: float
    """Part of the pixels of those masks that is ignored, 0..1."""
    sizes: tuple[tuple[int, int, int], ...]
    """Height, width and number of images, the most common size first."""

    @property
    def rare(self) -> tuple[str, ...]:
        """Names of the rare classes, absent ones included."""
        return tuple(c.name for c in self.classes if c.rare)

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the classes without a single pixel."""
        return tuple(c.name for c in self.classes if not c.pixels)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def summarise(
    dataset: SegDataset,
    class_counts: Mapping[str, NDArray[np.int64]],
    sizes: Sequence[tuple[int, int]],
) -> DatasetStats:
    """Statistics from counts that are already there.

    Args:
        dataset: the data set.
        class_counts: id -> pixels of each class and, last, ignored ones, (C + 1,).
        sizes: height and width of every readable image.
    """
    count = dataset.info.num_classes
    split = next((name for name in ("labeled", "train") if dataset.splits.get(name)), None)
    ids = dataset.splits[split] if split else tuple(class_counts)
    rows = [class_counts[i] for i in ids if i in class_counts]
    table = np.stack(rows) if rows else np.zeros((0, count + 1), np.int64)
    pixels, images = table.sum(axis=0), (table > 0).sum(axis=0)
    total = int(pixels[:count].sum())
    shares = pixels[:count] / max(total, 1)
    labeled = sum(sample.mask is not None for sample in dataset.samples)
    return DatasetStats(
        name=dataset.info.name,
        images=len(dataset.samples),
        labeled=labeled,
        unlabeled_share=1 - labeled / max(len(dataset.samples), 1),
        splits={name: len(ids) for name, ids in dataset.splits.items()},
        classes=tuple(
            ClassStats(
                name=name,
                pixels=int(pixels[i]),
                share=float(shares[i]),
                images=int(images[i]),
                rare=bool(rows) and bool(shares[i] < RARE_SHARE / count),
            )
            for i, name in enumerate(dataset.info.classes)
        ),
        counted=split or "all masks",
        ignored_share=float(pixels[count] / max(int(pixels.sum()), 1)),
        sizes=tuple((h, w, n) for (h, w), n in Counter(sizes).most_common()),
    )
