"""The scores of a semantic segmentation, all derived from one confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, eq=False)
class SegScores:
    """Data-set-level scores: pixels of all images are counted together, then divided.

    Which classes enter a mean (the usual convention, a nan-mean of intersection / union):

    * a class in neither ground truth nor prediction has no IoU: left out and listed in `absent`;
    * a class that is predicted although the ground truth never holds it has IoU 0, which counts:
      listed in `spurious`;
    * the mean accuracy runs over the classes of the ground truth.

    A score that no pixel supports is None, never NaN.

    Args:
        confusion: (C, C) int64 on the CPU; rows are true classes, columns predicted ones.
        ignored: pixels without a label.
    """

    confusion: Tensor
    ignored: int = 0

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.confusion)

    @property
    def pixels(self) -> tuple[int, ...]:
        """Pixels of each class in the ground truth."""
        return tuple(self.confusion.sum(dim=1).tolist())

    @property
    def predicted(self) -> tuple[int, ...]:
        """Labelled pixels predicted as each class."""
        return tuple(self.confusion.sum(dim=0).tolist())

    @property
    def absent(self) -> tuple[int, ...]:
        """Classes in neither ground truth nor prediction: without IoU, out of the mean."""
        return tuple(c for c, value in enumerate(self.iou) if value is None)

    @property
    def spurious(self) -> tuple[int, ...]:
        """Classes that are predicted but never true: IoU 0, in the mean."""
        both = zip(self.pixels, self.predicted, strict=True)
        return tuple(c for c, (true, guessed) in enumerate(both) if not true and guessed)

    @property
    def iou(self) -> tuple[float | None, ...]:
        """Intersection over union of each class."""
        hits = self.confusion.diagonal()
        return ratios(hits, self.confusion.sum(dim=1) + self.confusion.sum(dim=0) - hits)

    @property
    def accuracy(self) -> tuple[float | None, ...]:
        """Share of each class's pixels that are found (recall)."""
        return ratios(self.confusion.diagonal(), self.confusion.sum(dim=1))

    @property
    def precision(self) -> tuple[float | None, ...]:
        """Share of the pixels predicted as each class that are right."""
        return ratios(self.confusion.diagonal(), self.confusion.sum(dim=0))

    @property
    def miou(self) -> float | None:
        """Mean IoU; None without labelled pixels."""
        return known_mean(self.iou)

    @property
    def mean_accuracy(self) -> float | None:
        """Mean of `accuracy` over the classes of the ground truth."""
        return known_mean(self.accuracy)

    @property
    def pixel_accuracy(self) -> float | None:
        """Share of labelled pixels that are right."""
        total = int(self.confusion.sum())
        return int(self.confusion.diagonal().sum()) / total if total else None

    @property
    def miou_of_present(self) -> float | None:
        """Mean IoU over the classes of the ground truth alone: the score of a single image.

        A stray pixel of a class that the image does not show lowers the IoU of the class it
        replaces; it does not add a class of IoU 0.
        """
        present = [i for i, true in zip(self.iou, self.pixels, strict=True) if true]
        return known_mean(present)

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Everything as plain values for JSON; shares, not percent.

        Args:
            names: of the C classes.
        """
        if len(names) != self.num_classes:
            raise ValueError(f"{len(names)} names for {self.num_classes} classes")
        columns = (self.iou, self.accuracy, self.precision, self.pixels, self.predicted)
        keys = ("iou", "accuracy", "precision", "pixels", "predicted")
        return {
            "miou": self.miou,
            "pixel_accuracy": self.pixel_accuracy,
            "mean_accuracy": self.mean_accuracy,
            "pixels": sum(self.pixels),
            "ignored": self.ignored,
            "classes": [
                {"name": name, **dict(zip(keys, values, strict=True))}
                for name, *values in zip(names, *columns, strict=True)
            ],
            "absent": [names[c] for c in self.absent],
            "spurious": [names[c] for c in self.spurious],
            "confusion": self.confusion.tolist(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SegScores:
        """The inverse of `to_dict`: scores are computed again from the stored counts.

        Raises:
            ValueError: the counts are missing or are not a square table of whole numbers >= 0.
        """
        rows = values.get("confusion")
        square = isinstance(rows, list) and all(
            isinstance(row, list)
            and len(row) == len(rows)
            and all(type(count) is int and count >= 0 for count in row)
            for row in rows
        )
        if not rows or not square:
            raise ValueError("'confusion' must be a square table of counts")
        return cls(torch.tensor(rows, dtype=torch.int64), ignored=int(values.get("ignored", 0)))

    def table(self, names: Sequence[str]) -> str:
        """A plain text table in percent: one line a class, then the means and what is left out.

        Args:
            names: of the C classes.
        """
        width = max(len("mean"), *(len(name) for name in names))
        head = f"{'class':<{width}}  {'IoU':>6}  {'recall':>6}  {'precis.':>7}  {'pixels':>12}"
        rule = "-" * len(head)
        lines = [head, rule]
        columns = zip(names, self.iou, self.accuracy, self.precision, self.pixels, strict=True)
        lines += [
            f"{name:<{width}}  {percent(iou):>6}  {percent(recall):>6}  "
            f"{percent(precision):>7}  {pixels:>12,}"
            for name, iou, recall, precision, pixels in columns
        ]
        lines += [
            rule,
            f"{'mean':<{width}}  {percent(self.miou):>6}  {percent(self.mean_accuracy):>6}  "
            f"{'':>7}  {sum(self.pixels):>12,}",
            f"pixel accuracy {percent(self.pixel_accuracy)}, {self.ignored:,} pixels unlabelled",
        ]
        if self.absent:
            listed = ", ".join(names[c] for c in self.absent)
            lines.append(f"absent from ground truth and prediction, not in the mean: {listed}")
        if self.spurious:
            listed = ", ".join(names[c] for c in self.spurious)
            lines.append(f"predicted but absent from ground truth, IoU 0 in the mean: {listed}")
        return "\n".join(lines)


def ratios(parts: Tensor, wholes: Tensor) -> tuple[float | None, ...]:
    """Integer parts over integer wholes; None where the whole is zero."""
    pairs = zip(parts.tolist(), wholes.tolist(), strict=True)
    return tuple(part / whole if whole else None for part, whole in pairs)


def known_mean(values: Sequence[float | None]) -> float | None:
    """The mean of the values that exist; None without any."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def percent(share: float | None) -> str:
    """A share of 1 in percent with two digits; a dash where it is unknown (None or NaN)."""
    return "-" if share is None or share != share else f"{100 * share:.2f}"
