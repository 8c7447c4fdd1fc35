"""Counts of (true class, predicted class or cluster) pairs over a whole data set."""

from __future__ import annotations

from copy import copy
from typing import Self

import torch
from torch import Tensor

from pixelcontrast.core.distributed import all_reduce_sum
from pixelcontrast.core.errors import DataError
from pixelcontrast.evaluation.scores import SegScores
from pixelcontrast.evaluation.tiles import labels_from_logits

CHUNK_PIXELS = 2**20
"""Pixels counted at a time: their codes take 2 to 4 MiB whatever the size of the batch."""


class PairCounts:
    """Exact running counts (int64) of labelled pixels by true class and by what was predicted.

    Args:
        num_classes: C.
        num_columns: K, values a prediction can take.
        ignore_index: label that is left out; None where every pixel has a class.
        device: where the counts live; the device of the predictions.
    """

    def __init__(
        self,
        num_classes: int,
        num_columns: int,
        ignore_index: int | None = 255,
        device: torch.device | str = "cpu",
    ) -> None:
        if num_classes < 1 or num_columns < 1:
            raise ValueError(f"at least 1 class is needed, got {num_classes} and {num_columns}")
        self.num_classes = num_classes
        self.num_columns = num_columns
        self.ignore_index = ignore_index
        self.counts = torch.zeros(num_classes, num_columns, dtype=torch.int64, device=device)
        """(C, K): rows are true classes, columns predictions."""
        self.ignored = torch.zeros((), dtype=torch.int64, device=device)
        """Pixels without a label."""

    def update(self, prediction: Tensor, target: Tensor, *, where: str | None = None) -> None:
        """Adds the pixels of a batch.

        Fastest for uint8 on both sides: two bytes are read per pixel, nothing is masked out.

        Args:
            prediction: (B, H, W) values 0 .. K-1, any integer type.
            target: (B, H, W) class ids or the ignore index, any integer type.
            where: what the batch is, for the message of an error (image names).

        Raises:
            DataError: the target holds a value that is neither a class nor the ignore index; then
                nothing of the batch is counted.
        """
        if prediction.shape != target.shape:
            raise ValueError(
                f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ"
            )
        if prediction.numel() == 0:
            return
        low, high = _range(prediction)
        if low < 0 or high >= self.num_columns:
            raise ValueError(
                f"predicted classes {low} to {high}, expected 0 to {self.num_columns - 1}"
            )
        low, high = (0, 255) if target.dtype == torch.uint8 else _range(target)
        if low >= 0 and high <= 255:
            counts, ignored = self._count_bytes(prediction, target.to(torch.uint8), where)
        else:
            counts, ignored = self._count_integers(prediction, target, where)
        self.counts += counts.to(self.counts.device)
        self.ignored += ignored.to(self.ignored.device)

    def update_from_logits(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        align_corners: bool = False,
        where: str | None = None,
    ) -> None:
        """Adds a batch from class scores: upsampling, argmax and counting in bands of rows.

        Counts are those of `interpolate(logits, (H, W)).argmax(1)`, without the full-size scores.

        Args:
            logits: (B, K, h, w) scores at decoder resolution.
            target: (B, H, W) class ids or the ignore index.
            align_corners: as in `torch.nn.functional.interpolate`.
            where: what the batch is, for the message of an error.
        """
        if logits.shape[1] != self.num_columns:
            raise ValueError(f"logits of {logits.shape[1]} classes, expected {self.num_columns}")
        height, width = target.shape[-2:]
        labels = labels_from_logits(logits, (height, width), align_corners=align_corners)
        self.update(labels, target, where=where)

    def merge(self, other: Self) -> None:
        """Adds the counts of `other`."""
        self.counts += other.counts.to(self.counts.device)
        self.ignored += other.ignored.to(self.ignored.device)

    def reduce(self) -> Self:
        """The sum over all processes, a new object.

        Every process must call it. Each image must have been counted by one process only.
        """
        total = copy(self)
        total.counts = all_reduce_sum(self.counts).clone()
        total.ignored = all_reduce_sum(self.ignored).clone()
        return total

    def reset(self) -> None:
        """Back to zero."""
        self.counts.zero_()
        self.ignored.zero_()

    def _count_bytes(
        self, prediction: Tensor, target: Tensor, where: str | None
    ) -> tuple[Tensor, Tensor]:
        """Counts of uint8 targets: one row for each of the 256 values, looked at afterwards."""
        table = _pair_counts(prediction, target, 256, self.num_columns)
        ignored = table.new_zeros(())
        if self.ignore_index is not None and 0 <= self.ignore_index <= 255:
            ignored = table[self.ignore_index].sum()
            table[self.ignore_index] = 0
        foreign = table[self.num_classes :].sum(dim=1).nonzero().flatten() + self.num_classes
        if len(foreign):
            raise self._foreign_value(foreign.tolist(), where)
        return table[: self.num_classes], ignored

    def _count_integers(
        self, prediction: Tensor, target: Tensor, where: str | None
    ) -> tuple[Tensor, Tensor]:
        """Counts of targets beyond a byte: checked first, unlabelled pixels moved to row C."""
        rows = target
        outside = (target < 0) | (target >= self.num_classes)
        if self.ignore_index is not None:
            unlabelled = target == self.ignore_index
            outside &= ~unlabelled
            rows = target.masked_fill(unlabelled, self.num_classes)
        if bool(outside.any()):
            raise self._foreign_value(sorted(set(target[outside].tolist())), where)
        table = _pair_counts(prediction, rows, self.num_classes + 1, self.num_columns)
        return table[:-1], table[-1].sum()

    def _foreign_value(self, values: list[int], where: str | None) -> DataError:
        shown = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
        ignore = "" if self.ignore_index is None else f" and the ignore index {self.ignore_index}"
        return DataError(
            f"ground truth holds the value {shown}, known are classes 0 to "
            f"{self.num_classes - 1}{ignore}",
            where=where,
            fix="map the value to a class or to the ignore index in dataset.yaml",
        )


class ConfusionMatrix(PairCounts):
    """Exact running counts of (true class, predicted class) from which every score follows.

    Args:
        num_classes: C.
        ignore_index: label that is left out; None where every pixel has a class.
        device: where the counts live; the device of the predictions.
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int | None = 255,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(num_classes, num_classes, ignore_index, device)

    def scores(self) -> SegScores:
        """The scores of everything counted so far, on the CPU."""
        return SegScores(self.counts.cpu().clone(), ignored=int(self.ignored))


def _range(labels: Tensor) -> tuple[int, int]:
    low, high = labels.aminmax()
    return int(low), int(high)


def _pair_counts(columns: Tensor, rows: Tensor, num_rows: int, num_columns: int) -> Tensor:
    """Histogram (num_rows, num_columns) of value pairs, exact in int64.

    One integer code a pixel and one bincount; the code is int16 where it fits, which halves the
    bytes that are written and read. No mask is gathered, and nothing changes in deterministic mode.
    """
    cells = num_rows * num_columns
    code_type = torch.int16 if cells <= torch.iinfo(torch.int16).max else torch.int32
    table = torch.zeros(cells, dtype=torch.int64, device=columns.device)
    flat_columns, flat_rows = columns.reshape(-1), rows.to(columns.device).reshape(-1)
    for start in range(0, flat_columns.numel(), CHUNK_PIXELS):
        chunk = slice(start, start + CHUNK_PIXELS)
        code = flat_rows[chunk].to(code_type).mul_(num_columns).add_(flat_columns[chunk])
        table += torch.bincount(code, minlength=cells)
    return table.view(num_rows, num_columns)
