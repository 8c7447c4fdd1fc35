"""Mini-batch k-means of the features of a whole data set."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from pixelcontrast.core.distributed import all_reduce_sum, gather_rows, rank
from pixelcontrast.core.errors import DataError
from pixelcontrast.memory.lloyd import (
    cluster_sums,
    lloyd,
    nearest,
    sum_of_squares,
    unit_length,
)

_ROWS_PER_CLUSTER = 39
"""Fewer rows than this for each cluster place it badly: the warning of faiss."""


class MiniBatchKMeans(nn.Module):
    """Clusters of a stream of rows: full k-means on its beginning, then running means.

    Cho et al., "PiCIE" (CVPR 2021), section 3.2: k-means of some batches (`start`), after which
    every batch moves the centroids, `n += c; mean += c / n * (batch mean - mean)` for the c rows
    nearest to a centroid (`update`), so that a mean is that of everything ever assigned to it.

    Sums run over all processes, so all hold the same centroids, those of one process with all
    rows. The state lies in buffers, float32 under autocast, and is part of a checkpoint.

    Args:
        num_clusters: K.
        dim: D.
        spherical: rows and centroids are compared by direction, as a cosine classifier does. Rows
            must then have unit length (or be zero); the centroids are the directions of the means.
    """

    same_on_all_ranks = True
    means: Tensor
    counts: Tensor
    distance: Tensor
    batches: Tensor

    def __init__(self, num_clusters: int, dim: int, *, spherical: bool = False) -> None:
        super().__init__()
        self.spherical = spherical
        self.register_buffer("means", torch.zeros(num_clusters, dim))
        self.register_buffer("counts", torch.zeros(num_clusters, dtype=torch.int64))
        self.register_buffer("distance", torch.zeros((), dtype=torch.float64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @property
    def num_clusters(self) -> int:
        """K."""
        return len(self.counts)

    @property
    def centroids(self) -> Tensor:
        """(K, D) float32 running means; of unit length if `spherical`."""
        return unit_length(self.means) if self.spherical else self.means

    @property
    def loss(self) -> Tensor:
        """() float64 mean of the mean squared distances of `start` and of every update."""
        return self.distance / self.batches.clamp(min=1)

    def start(
        self,
        rows_ND: Tensor,
        generator: torch.Generator | None = None,
        *,
        init: Tensor | None = None,
        iterations: int = 20,
        where: str | None = None,
    ) -> None:
        """Forget everything and cluster the rows by full k-means; all processes must take part.

        Args:
            rows_ND: (N, D) rows of this process, of any floating type; no gradient is kept.
            generator: on the CPU and alike on all processes; draws the K rows to start from.
            init: (K, D) start in place of drawn rows.
            iterations: of full k-means (PiCIE: 20); 0 takes `init` as it is and only counts.
            where: what the rows are, for the message of an error.

        Raises:
            DataError: there are fewer rows than clusters.
            TrainingError: a row is not finite.
        """
        mine = torch.tensor([len(rows_ND)], device=rows_ND.device)
        sizes: list[int] = gather_rows(mine, same_rows=True).tolist()
        if sum(sizes) < self.num_clusters:
            raise DataError(
                f"{self.num_clusters} clusters need at least as many pixels, "
                f"there are {sum(sizes)}",
                where=where,
                fix="ask for fewer clusters, or give more or larger images",
            )
        if init is None:
            init = _drawn_rows(rows_ND, sizes, self.num_clusters, generator)
        found = lloyd(rows_ND, init, iterations, spherical=self.spherical, where=where)
        self.means.copy_(found.means)
        self.counts.copy_(found.counts)
        self.distance.copy_(found.distance)
        self.batches.fill_(1)
        if iterations and not rank():
            _warn(sum(sizes), self.counts)

    @torch.no_grad()
    def update(self, rows_ND: Tensor, *, where: str | None = None) -> None:
        """Take in one batch, that of all processes together; all of them must take part.

        Args:
            rows_ND: (N, D) rows of this process, possibly none; no gradient is kept.
            where: what the rows are, for the message of an error.

        Raises:
            TrainingError: a row is not finite; nothing has changed then.
        """
        squares = sum_of_squares(rows_ND, where=where)
        found = cluster_sums(rows_ND, self.centroids, squares, spherical=self.spherical)
        total = self.counts + found.counts
        rate = (found.counts / total.clamp(min=1)).float()
        self.means.lerp_(found.means(self.means), rate[:, None])
        self.counts.copy_(total)
        mean = found.distance / found.counts.sum().clamp(min=1)
        self.distance += mean
        self.batches += 1

    def assign(self, rows_ND: Tensor) -> Tensor:
        """The cluster of every row, (N,) int64; on a CPU the lower number wins a tie."""
        return nearest(rows_ND, self.centroids, spherical=self.spherical)


def _drawn_rows(
    rows_ND: Tensor, sizes: list[int], count: int, generator: torch.Generator | None
) -> Tensor:
    """(K, D) different rows out of those of all processes, numbered in rank order."""
    first = sum(sizes[: rank()])
    place = torch.randperm(sum(sizes), generator=generator)[:count].to(rows_ND.device) - first
    here = (place >= 0) & (place < len(rows_ND))
    drawn = torch.zeros(count, rows_ND.shape[1], device=rows_ND.device)
    drawn[here] = rows_ND.detach()[place[here]].float()
    return all_reduce_sum(drawn)


def _warn(rows: int, counts_K: Tensor) -> None:
    clusters, unused = len(counts_K), int((counts_K == 0).sum())
    if rows < _ROWS_PER_CLUSTER * clusters:
        warnings.warn(
            f"{rows} pixels are few for {clusters} clusters, better give at least "
            f"{_ROWS_PER_CLUSTER * clusters}",
            stacklevel=3,
        )
    if unused:
        warnings.warn(
            f"{unused} of {clusters} clusters stay empty: the pixels have too few different "
            "feature vectors",
            stacklevel=3,
        )
