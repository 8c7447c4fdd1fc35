"""One vector, or one Gaussian, per class, gathered over the whole training."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pixelcontrast.core.class_sums import class_sums
from pixelcontrast.core.distributed import all_reduce_sum
from pixelcontrast.memory.storage import Keys

_BLOCK_ROWS = 4096


class ClassPrototypes(nn.Module):
    """The mean vector of every class: over everything seen, or with the past fading.

    Without decay, `mean += n / (count + n) * (batch mean - mean)` is the mean of all vectors so
    far, the update of mini-batch k-means. With decay d, `mean = d * mean + (1 - d) * batch mean`.
    A class met for the first time takes the batch mean; one that is absent keeps its state.

    Sums run over all processes, so all hold the same prototypes. What `ClassQueue` says about
    checkpoints and export holds here too.

    Args:
        num_classes: C.
        dim: D.
        decay: d; None for the running mean.
    """

    same_on_all_ranks = True
    mean: Tensor
    count: Tensor

    def __init__(self, num_classes: int, dim: int, *, decay: float | None = None) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("mean", torch.zeros(num_classes, dim))
        self.register_buffer("count", torch.zeros(num_classes, dtype=torch.int64))

    @torch.no_grad()
    def update(self, vectors_ND: Tensor, labels_N: Tensor) -> None:
        """Take in the vectors of one step.

        Args:
            vectors_ND: (N, D); no gradient is kept.
            labels_N: (N,) class ids; rows outside [0, C) are left out.
        """
        sums, new = class_sums(vectors_ND[None], labels_N[None], self.count.numel())
        sums, new = all_reduce_sum(sums[0]), all_reduce_sum(new[0])
        batch_mean = sums / new.clamp(min=1)[:, None]
        total = self.count + new
        rate = new / total.clamp(min=1)
        if self.decay is not None:
            rate = torch.where(self.count > 0, (new > 0) * (1 - self.decay), rate)
        self.mean.lerp_(batch_mean.to(self.mean.dtype), rate[:, None])
        self.count.copy_(total)

    def keys(self) -> Keys:
        """The (C, D) prototypes; those of classes never seen are not valid."""
        classes = torch.arange(self.count.numel(), device=self.count.device)
        valid = self.count > 0
        return Keys(self.mean, torch.where(valid, classes, -1), valid)


class Gaussians(NamedTuple):
    """A Gaussian with independent components for every class."""

    mean: Tensor
    """(C, D) float64; zero for classes without one."""
    variance: Tensor
    """(C, D) float64; infinite for classes without one."""
    valid: Tensor
    """(C,) bool: there is one."""


class GaussianSums(NamedTuple):
    """What one step tells about every class, over all processes."""

    precision: Tensor
    """(C, D) float64 sums of 1 / variance."""
    weighted_mean: Tensor
    """(C, D) float64 sums of mean / variance."""
    present: Tensor
    """(C,) bool: the class has a vector."""

    def gaussians(self) -> Gaussians:
        """The prototypes of this step alone ("local")."""
        return _gaussians(*self)


class GaussianPrototypes(nn.Module):
    """The product of all Gaussians observed of a class: a precision-weighted mean.

    Xie et al., "Boosting Semi-Supervised Semantic Segmentation with Probabilistic
    Representations" (AAAI 2023), prototypes, and its journal version, global distribution
    prototypes: `1 / var = sum 1 / var_i`, `mean = var * sum mean_i / var_i`. The state is these
    two sums, to which observations are added, in float64 because the precision only grows.

    Sums run over all processes, so all hold the same prototypes. What `ClassQueue` says about
    checkpoints and export holds here too.

    Args:
        num_classes: C.
        dim: D.
        decay: factor on the old sums whenever the class is seen; 1 is the published formula,
            less lets the prototype follow features that drift.
    """

    same_on_all_ranks = True
    precision: Tensor
    weighted_mean: Tensor
    seen: Tensor

    def __init__(self, num_classes: int, dim: int, *, decay: float = 1.0) -> None:
        super().__init__()
        self.decay = decay
        zeros = torch.zeros(num_classes, dim, dtype=torch.float64)
        self.register_buffer("precision", zeros)
        self.register_buffer("weighted_mean", zeros.clone())
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    @torch.no_grad()
    def observe(self, mean_ND: Tensor, variance_ND: Tensor, labels_N: Tensor) -> GaussianSums:
        """The sums of one step over all processes; nothing is remembered yet.

        Args:
            mean_ND: (N, D), not normalised; no gradient is kept.
            variance_ND: (N, D), positive.
            labels_N: (N,) class ids; rows outside [0, C) are left out.
        """
        return _natural_sums(mean_ND, variance_ND, labels_N, self.seen.numel())

    @torch.no_grad()
    def add(self, new: GaussianSums) -> None:
        """Remember the sums of a step."""
        for mine, total in zip(self.buffers(), self._with(new), strict=True):
            mine.copy_(total)

    def update(self, mean_ND: Tensor, variance_ND: Tensor, labels_N: Tensor) -> Gaussians:
        """`observe` and `add` in one.

        Returns:
            The prototypes of this step alone ("local").
        """
        new = self.observe(mean_ND, variance_ND, labels_N)
        self.add(new)
        return new.gaussians()

    def gaussians(self, new: GaussianSums | None = None) -> Gaussians:
        """The prototypes of the whole training ("global").

        Args:
            new: sums of a step that count as if they were remembered already.
        """
        if new is not None:
            return _gaussians(*self._with(new))
        return _gaussians(self.precision, self.weighted_mean, self.seen)

    def _with(self, new: GaussianSums) -> GaussianSums:
        kept = torch.where(new.present, self.decay, 1.0).double()[:, None]
        return GaussianSums(
            self.precision * kept + new.precision,
            self.weighted_mean * kept + new.weighted_mean,
            self.seen | new.present,
        )


def _natural_sums(
    mean_ND: Tensor, variance_ND: Tensor, labels_N: Tensor, num_classes: int
) -> GaussianSums:
    dim = mean_ND.shape[1]
    sums = torch.zeros(num_classes, 2 * dim, dtype=torch.float64, device=mean_ND.device)
    number = torch.zeros(num_classes, dtype=torch.int64, device=mean_ND.device)
    # In blocks, since a step may have millions of vectors and these are in double precision.
    for start in range(0, len(labels_N), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        precision = variance_ND[rows].double().reciprocal()
        both = torch.cat([precision, mean_ND[rows].double() * precision], 1)
        block_sums, block_number = class_sums(both[None], labels_N[None, rows], num_classes)
        sums += block_sums[0]
        number += block_number[0]
    total = all_reduce_sum(sums)
    return GaussianSums(total[:, :dim], total[:, dim:], all_reduce_sum(number) > 0)


def _gaussians(precision: Tensor, weighted: Tensor, valid: Tensor) -> Gaussians:
    variance = precision.reciprocal()  # infinite where nothing was added
    mean = torch.where(valid[:, None], weighted * variance, 0.0)
    return Gaussians(mean, variance, valid)
