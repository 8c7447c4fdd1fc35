"""Instance-weighted IoU of Cityscapes, as its official script computes it.

Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016, section
4.1: true positives and false negatives of a class are weighted by average instance size over the
size of their own instance, so that a far pedestrian counts as much as a near one. False positives
have no instance and stay plain counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

NUM_LABELS = 34
"""Label ids of Cityscapes are 0 .. 33."""

CLASSES: dict[str, int] = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""Label ids of the evaluated classes, in the order of the train ids."""

CATEGORIES: dict[str, tuple[str, ...]] = {
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}

AVERAGE_SIZE: dict[str, float] = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}
"""Mean pixels of an instance at 2048 x 1024, as the script states them."""

_CARAVAN_AND_TRAILER = (29, 30)
"""Not evaluated, yet part of the vehicles where the script weighs instances."""


@dataclass(frozen=True, slots=True, eq=False)
class InstanceScores:
    """IoU and instance-weighted IoU of classes and categories; NaN where it is not defined."""

    class_iou: dict[str, float]
    class_iiou: dict[str, float]
    """Of the eight classes with instances; the others have none."""
    category_iou: dict[str, float]
    category_iiou: dict[str, float]
    """Of `human` and `vehicle`."""

    @property
    def means(self) -> dict[str, float]:
        """Mean of each of the four over the entries that are defined."""
        return {
            name: _mean(getattr(self, name).values())
            for name in ("class_iou", "class_iiou", "category_iou", "category_iiou")
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for NaN."""
        tables = ("class_iou", "class_iiou", "category_iou", "category_iiou")
        return {name: _plain(getattr(self, name)) for name in tables} | {
            "means": _plain(self.means)
        }


class InstanceMeter:
    """Counts from which the scores follow; counts of disjoint sets of images add up.

    Images must have their full size: the average sizes are not rescaled.
    """

    def __init__(self) -> None:
        self.confusion: NDArray[np.int64] = np.zeros((NUM_LABELS, NUM_LABELS), np.int64)
        """Rows are true label ids, columns predicted ones."""
        self.class_weights: NDArray[np.float64] = np.zeros((len(CLASSES), 2))
        """Weighted (iTP, iFN) of each class."""
        self.category_weights: NDArray[np.float64] = np.zeros((len(CATEGORIES), 2))

    def update(
        self,
        prediction: NDArray[np.integer],
        target: NDArray[np.integer],
        instances: NDArray[np.integer],
    ) -> None:
        """Adds one image.

        Args:
            prediction: (H, W) label ids 0 .. 33.
            target: (H, W) label ids 0 .. 33.
            instances: (H, W) Cityscapes instance ids: `label * 1000 + number` for instances, the
                bare label for everything else, groups included.

        Raises:
            ValueError: sizes differ, or an id lies outside 0 .. 33.
        """
        if not prediction.shape == target.shape == instances.shape:
            raise ValueError(
                f"prediction {prediction.shape}, target {target.shape} and instances "
                f"{instances.shape} differ in size"
            )
        predicted = prediction.astype(np.int64).ravel()
        codes = target.astype(np.int64).ravel() * NUM_LABELS + predicted
        if predicted.size and not (
            min(predicted.min(), target.min()) >= 0
            and max(predicted.max(), target.max()) < NUM_LABELS
        ):
            raise ValueError(f"label ids must lie in 0 .. {NUM_LABELS - 1}")
        self.confusion += np.bincount(codes, minlength=NUM_LABELS**2).reshape(self.confusion.shape)
        self._add_instances(predicted, instances.astype(np.int64).ravel())

    def merge(self, other: InstanceMeter) -> None:
        """Adds the counts of other images."""
        self.confusion += other.confusion
        self.class_weights += other.class_weights
        self.category_weights += other.category_weights

    def scores(self) -> InstanceScores:
        """The scores of everything counted so far."""
        evaluated = np.array(list(CLASSES.values()))
        found = InstanceScores({}, {}, {}, {})
        for (name, label), weights in zip(CLASSES.items(), self.class_weights, strict=True):
            wrong = self._false_positives([label], evaluated)
            hits, true = self.confusion[label, label], self.confusion[label].sum()
            found.class_iou[name] = _ratio(hits, true + wrong)
            found.class_iiou[name] = (
                _ratio(weights[0], weights.sum() + wrong) if name in AVERAGE_SIZE else nan
            )
        for (name, members), weights in zip(CATEGORIES.items(), self.category_weights, strict=True):
            labels = [CLASSES[member] for member in members]
            rows = self.confusion[labels]
            found.category_iou[name] = _ratio(
                rows[:, labels].sum(), rows.sum() + self._false_positives(labels, evaluated)
            )
            wrong = self._false_positives(_accepted(name), evaluated)
            found.category_iiou[name] = (
                _ratio(weights[0], weights.sum() + wrong) if AVERAGE_SIZE.keys() & members else nan
            )
        return found

    def _add_instances(self, predicted: NDArray[np.int64], instances: NDArray[np.int64]) -> None:
        """Weighted hits and misses of every instance of the image."""
        own = instances > 1000
        ids, member = np.unique(instances[own], return_inverse=True)
        codes = member.ravel() * NUM_LABELS + predicted[own]
        hits = np.bincount(codes, minlength=len(ids) * NUM_LABELS).reshape(-1, NUM_LABELS)
        category_of = {m: place for place, names in enumerate(CATEGORIES.values()) for m in names}
        for place, (name, label) in enumerate(CLASSES.items()):
            if name not in AVERAGE_SIZE:
                continue
            mine = hits[ids // 1000 == label]
            size = mine.sum(axis=1)
            weight = AVERAGE_SIZE[name] / size
            for table, at, accepted in (
                (self.class_weights, place, [label]),
                (self.category_weights, category_of[name], _accepted_of(name)),
            ):
                right = mine[:, accepted].sum(axis=1)
                table[at] += (right * weight).sum(), ((size - right) * weight).sum()

    def _false_positives(self, labels: list[int], evaluated: NDArray[np.int64]) -> int:
        """Pixels predicted as one of `labels` whose true class is evaluated and another one."""
        others = np.setdiff1d(evaluated, labels)
        return int(self.confusion[others][:, labels].sum())


def label_ids(train_ids: NDArray[np.integer]) -> NDArray[np.int64]:
    """Label ids of train ids 0 .. 18; anything else becomes 0 (unlabelled)."""
    table = np.zeros(256, np.int64)
    table[: len(CLASSES)] = list(CLASSES.values())
    return np.asarray(table[train_ids])


def knows_classes(names: Sequence[str]) -> bool:
    """Whether class names are the 19 of Cityscapes in the order of the train ids."""
    return tuple(names) == tuple(CLASSES)


def _accepted(category: str) -> list[int]:
    """Predictions that count as the category where instances are weighed."""
    labels = [CLASSES[member] for member in CATEGORIES[category]]
    return labels + (list(_CARAVAN_AND_TRAILER) if category == "vehicle" else [])


def _accepted_of(name: str) -> list[int]:
    return _accepted(next(k for k, members in CATEGORIES.items() if name in members))


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else nan


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else nan


def _plain(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if value != value else value for name, value in values.items()}
