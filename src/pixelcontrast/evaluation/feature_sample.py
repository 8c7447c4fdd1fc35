"""A uniform sample of the features of every class that no order of the data can change.

Each feature has a random number that depends on a seed, the name of its image and its place there,
and a class keeps the features of the smallest numbers. Any split of the images over batches and
processes therefore keeps the same features, and two samples merge by the same rule.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)
_LARGEST = 2**63 - 1
_LEAST_PENDING = 2**14
"""Rows that are worth a sort."""


def pixel_keys(seed: int, image: str, index: Tensor) -> Tensor:
    """A random number for each pixel of an image: SplitMix64 (Steele et al., OOPSLA 2014).

    Args:
        seed: of the sample.
        image: name of the image.
        index: (P,) int64 places in the image.

    Returns:
        (P,) int64 in 0 .. 2^63 - 1, the same on every device.
    """
    digest = hashlib.sha256(f"{seed}\0{image}".encode()).digest()
    start = int.from_bytes(digest[:8], "little", signed=True)
    key = (index + 1) * _GOLDEN + start  # int64 products wrap around, as SplitMix64 wants
    key = (key ^ _shifted(key, 30)) * _MIX[0]
    key = (key ^ _shifted(key, 27)) * _MIX[1]
    return (key ^ _shifted(key, 31)) & _LARGEST


class FeatureSample:
    """The features with the smallest keys of every class.

    Args:
        num_classes: C.
        size: M, most features of one class.
    """

    def __init__(self, num_classes: int, size: int) -> None:
        self.num_classes = num_classes
        self.size = size
        self._cutoff: Tensor | None = None
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []
        self._pending = 0
        self._kept = 0

    def add(self, vectors: Tensor, labels: Tensor, keys: Tensor) -> None:
        """Offer features.

        Args:
            vectors: (P, F).
            labels: (P,) int64 class ids 0 .. C-1.
            keys: (P,) int64 random numbers from 0.
        """
        if self._cutoff is None:
            self._cutoff = labels.new_full((self.num_classes,), _LARGEST)
        small = keys <= self._cutoff[labels]
        self._rows.append((vectors[small], labels[small], keys[small]))
        self._pending += len(self._rows[-1][0])
        # Sorting when a share of the store is new keeps memory bounded and the cost per row flat.
        if self._pending > max(_LEAST_PENDING, self._kept // 4):
            self._settle()

    def merge(self, other: FeatureSample) -> None:
        """Union, of which each class keeps the smallest keys."""
        for rows in other._rows:
            self.add(*rows)

    def rows(self, most: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The sample, ordered by class, then by key.

        Args:
            most: per class; None: all M. Fewer are a uniform sample again.

        Returns:
            Vectors (N, F), labels (N,) and keys (N,). Without any feature F is 0.
        """
        self._settle()
        if not self._rows:
            empty = torch.zeros(0, dtype=torch.int64)
            return torch.zeros(0, 0), empty, empty
        vectors, labels, keys = self._rows[0]
        if most is not None and most < self.size:
            first = _rank_in_class(labels, self.num_classes) < most
            vectors, labels, keys = vectors[first], labels[first], keys[first]
        return vectors, labels, keys

    def _settle(self) -> None:
        if self._pending == 0:
            return
        vectors, labels, keys = (torch.cat(parts) for parts in zip(*self._rows, strict=True))
        order = keys.argsort()
        order = order[labels[order].argsort(stable=True)]
        order = order[_rank_in_class(labels[order], self.num_classes) < self.size]
        self._rows = [(vectors[order], labels[order], keys[order])]
        labels, keys = self._rows[0][1:]
        counts = labels.bincount(minlength=self.num_classes)
        last = keys[(counts.cumsum(0) - 1).clamp(min=0)]
        self._cutoff = torch.where(counts == self.size, last, _LARGEST)
        self._pending, self._kept = 0, len(labels)


def _rank_in_class(labels: Tensor, num_classes: int) -> Tensor:
    """Place of each row among those of its class, for sorted labels."""
    counts = labels.bincount(minlength=num_classes)
    starts = counts.cumsum(0) - counts
    rank: Tensor = torch.arange(len(labels), device=labels.device) - starts[labels]
    return rank


def _shifted(key: Tensor, bits: int) -> Tensor:
    """Unsigned shift to the right."""
    shifted: Tensor = (key >> bits) & (2 ** (64 - bits) - 1)
    return shifted
