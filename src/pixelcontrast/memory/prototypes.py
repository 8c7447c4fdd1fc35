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
    def update(self, mean_ND: Tensor, variance_ND: Tensor, labels_N: Tensor) -> Gaussians:
        """Take in the Gaussians of one step.

        Args:
            mean_ND: (N, D), not normalised; no gradient is kept.
            variance_ND: (N, D), positive.
            labels_N: (N,) class ids; rows outside [0, C) are left out.

        Returns:
            The prototypes of this step alone ("local"), over all processes.
        """
        precision, weighted, number = _natural_sums(
            mean_ND, variance_ND, labels_N, self.seen.numel()
        )
        present = number > 0
        kept = torch.where(present, self.decay, 1.0).double()[:, None]
        self.precision.mul_(kept).add_(precision)
        self.weighted_mean.mul_(kept).add_(weighted)
        self.seen.logical_or_(present)
        return _gaussians(precision, weighted, present)

    def gaussians(self) -> Gaussians:
        """The prototypes of the whole training ("global")."""
        return _gaussians(self.precision, self.weighted_mean, self.seen)


def _natural_sums(
    mean_ND: Tensor, variance_ND: Tensor, labels_N: Tensor, num_classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(C, D) sums of 1 / var and of mean / var, (C,) number of terms, over all processes."""
    dim = mean_ND.shape[1]
    sums = torch.zeros(num_classes, 2 * dim, dtype=torch.float64, device=mean_ND.device)
    number = torch.zeros(num_classes, dtype=torch.int64, device=mean_ND.device)
    # In blocks, since a step may have millions of vectors and these are in double precision.
    parts = (rows.split(_BLOCK_ROWS) for rows in (mean_ND, variance_ND, labels_N))
    for mean, variance, labels in zip(*parts, strict=True):
        precision = variance.double().reciprocal()
        both = torch.cat([precision, mean.double() * precision], 1)
        block_sums, block_number = class_sums(both[None], labels[None], num_classes)
        sums += block_sums[0]
        number += block_number[0]
    total = all_reduce_sum(sums)
    return total[:, :dim], total[:, dim:], all_reduce_sum(number)


def _gaussians(precision: Tensor, weighted: Tensor, valid: Tensor) -> Gaussians:
    variance = precision.reciprocal()  # infinite where nothing was added
    mean = torch.where(valid[:, None], weighted * variance, 0.0)
    return Gaussians(mean, variance, valid)
