"""Lloyd's k-means on the device that holds the rows, in chunks, over all processes.

No distance matrix of all rows is stored, only the scores of one chunk, and the rows may be stored
in half precision: products and sums are float32, sums over chunks and processes float64. Every
process holds its own rows and gets the same centroids.

Letters: N rows, D their width, K clusters.
"""

from __future__ import annotations

from math import ceil, log2
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcontrast.core.distributed import all_reduce_sum
from pixelcontrast.core.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator

_CPU_ROWS, _GPU_ROWS = 2**11, 2**16
"""Rows of a chunk: their scores stay in the cache of a core; enough work for a GPU."""
_WIDTH = 16
"""Matrix products on a CPU are about a third faster for a multiple of 16 columns than for 27."""
_SPLIT = 1 / 1024
"""Relative distance of the two halves of a split centroid, as in faiss."""
_SAME = 1e-9
"""Mean squared distance, relative to the centroid's square, below which rows are all the same."""
_EXTRA_PASSES = 10
"""Passes after the last iteration that may be spent on filling empty clusters."""


class ClusterSums(NamedTuple):
    """What one pass over the rows of all processes tells about every cluster."""

    sums: Tensor
    """(K, D) float64 sum of the rows nearest to each centroid."""
    counts: Tensor
    """(K,) int64."""
    distance: Tensor
    """() float64 sum of the squared distances of the rows to their centroids."""

    def means(self, otherwise_KD: Tensor) -> Tensor:
        """(K, D) float32 mean rows; clusters without rows keep `otherwise_KD`."""
        means = self.sums / self.counts.clamp(min=1)[:, None]
        return torch.where(self.counts[:, None] > 0, means.float(), otherwise_KD)


class Clustering(NamedTuple):
    """The outcome of `lloyd`."""

    means: Tensor
    """(K, D) float32 mean rows, also where the centroids are their directions."""
    counts: Tensor
    """(K,) int64 rows nearest to each centroid."""
    distance: Tensor
    """() float64 mean squared distance of a row to its centroid."""


def unit_length(rows_ND: Tensor) -> Tensor:
    """Float32 rows over their lengths; a zero row stays zero."""
    return F.normalize(rows_ND.float(), dim=-1, eps=1e-12)


@torch.no_grad()
def nearest(rows_ND: Tensor, centroids_KD: Tensor, *, spherical: bool = False) -> Tensor:
    """The nearest centroid of every row, (N,) int64; on a CPU the lower number wins a tie.

    Args:
        rows_ND: (N, D) of any floating type.
        centroids_KD: (K, D).
        spherical: by the largest product with centroids of unit length (or zero), the rule of a
            cosine classifier, in place of the smallest distance.
    """
    chunks = _scored(rows_ND, centroids_KD, spherical=spherical)
    return torch.cat([labels for _, _, labels in chunks])


@torch.no_grad()
def cluster_sums(
    rows_ND: Tensor,
    centroids_KD: Tensor,
    squares: Tensor,
    *,
    spherical: bool = False,
) -> ClusterSums:
    """Sums, counts and distances of one pass; all processes must take part.

    Args:
        rows_ND: (N, D) rows of this process, possibly none.
        centroids_KD: (K, D), equal on all processes.
        squares: () `sum_of_squares` of the rows, which also makes sure that they are finite.
        spherical: see `nearest`.
    """
    clusters, dim = centroids_KD.shape
    device = rows_ND.device
    sums = torch.zeros(clusters, dim, dtype=torch.float64, device=device)
    counts = torch.zeros(clusters, dtype=torch.int64, device=device)
    lowest = torch.zeros((), dtype=torch.float64, device=device)
    for rows, scores, labels in _scored(rows_ND, centroids_KD, spherical=spherical):
        part, number = _sums_and_counts(rows, labels, clusters)
        sums += part
        counts += number
        lowest += scores.sum(dtype=torch.float64)
    sums, counts = all_reduce_sum(sums), all_reduce_sum(counts)
    distance = squares + 2 * all_reduce_sum(lowest)
    if spherical:  # the scores lack the squared lengths of the centroids
        distance += (centroids_KD.double().square().sum(1) * counts).sum()
    return ClusterSums(sums, counts, distance.clamp(min=0))


@torch.no_grad()
def sum_of_squares(rows_ND: Tensor, *, where: str | None = None) -> Tensor:
    """() float64 sum of the squared lengths of the rows of all processes, which must take part.

    Args:
        rows_ND: (N, D) rows of this process, possibly none.
        where: what the rows are, for the message of an error.

    Raises:
        TrainingError: a row is not finite, on whichever process.
    """
    total = torch.zeros((), dtype=torch.float64, device=rows_ND.device)
    for rows in _split(rows_ND):
        total += torch.linalg.vector_norm(rows.float()).double().square()
    total = all_reduce_sum(total)
    if not bool(total.isfinite()):
        raise TrainingError(
            "features to be clustered are not finite",
            where=where,
            fix="look for NaN in the images and in the weights; lower the learning rate",
        )
    return total


def lloyd(
    rows_ND: Tensor,
    centroids_KD: Tensor,
    iterations: int,
    *,
    spherical: bool = False,
    where: str | None = None,
) -> Clustering:
    """Full k-means (Lloyd 1982); spherical: Dhillon and Modha 2001.

    A cluster that runs empty takes half of the largest one (`split_into_empty`). If one is empty
    after the last iteration, up to 10 more follow. A fixed point ends the search early. All
    processes must take part.

    Args:
        rows_ND: (N, D) rows of this process; of unit length, or zero, if `spherical`.
        centroids_KD: (K, D) start, equal on all processes.
        iterations: moves of the centroids; 0 only counts.
        spherical: see `nearest`; the centroids are then the directions of the means.
        where: what the rows are, for the message of an error.

    Raises:
        TrainingError: a row is not finite.
    """
    squares = sum_of_squares(rows_ND, where=where)
    means = centroids_KD.float()
    last = iterations + (_EXTRA_PASSES if iterations else 0)
    for step in range(last + 1):
        centroids = unit_length(means) if spherical else means
        found = cluster_sums(rows_ND, centroids, squares, spherical=spherical)
        full = bool((found.counts > 0).all())
        if step == last or (step >= iterations and full):
            break
        moved = found.means(means)
        if not full:
            varied = _has_different_rows(rows_ND, centroids, moved, spherical=spherical)
            if step >= iterations and not bool(varied.any()):
                break
            moved = split_into_empty(moved, found.counts, varied)
        elif torch.equal(moved, means):
            break
        means = moved
    return Clustering(means, found.counts, found.distance / found.counts.sum().clamp(min=1))


def split_into_empty(means_KD: Tensor, counts_K: Tensor, varied_K: Tensor) -> Tensor:
    """Centroids in which every empty cluster shares with a large one, as far as that is possible.

    The rule of faiss without its dice: the largest cluster gives half of its rows to the first
    empty one, the second largest to the second, and so on, in rounds until none is empty. The two
    centroids move apart by 1 / 1024 of each component, in turn up and down.

    Args:
        means_KD: (K, D).
        counts_K: (K,) rows of each cluster.
        varied_K: (K,) bool, the clusters whose rows differ and which can therefore be split.
    """
    means, counts = means_KD.clone(), counts_K.clone()
    signs = torch.ones(means.shape[1], device=means.device)
    signs[1::2] = -1
    varied = varied_K.clone()
    for _ in range(ceil(log2(max(len(counts), 2)))):  # a round can double the clusters in use
        sizes = torch.where(varied, counts, 0)
        sizes, givers = sizes.sort(descending=True, stable=True)
        empty, takers = (counts == 0).int().sort(descending=True, stable=True)
        possible = (sizes >= 2) & (empty > 0)
        giver, taker = givers[possible], takers[possible]
        means[taker] = means[giver] * (1 + _SPLIT * signs)
        means[giver] = means[giver] * (1 - _SPLIT * signs)
        counts[taker] = counts[giver] // 2
        counts[giver] -= counts[taker]
        varied[taker] = True
    return means


def _has_different_rows(
    rows_ND: Tensor, centroids_KD: Tensor, means_KD: Tensor, *, spherical: bool
) -> Tensor:
    """(K,) bool: the rows nearest to the centroid differ from each other."""
    apart = torch.zeros(len(means_KD), dtype=torch.float64, device=rows_ND.device)
    counts = torch.zeros_like(apart)
    for rows, _, labels in _scored(rows_ND, centroids_KD, spherical=spherical):
        squares = (rows - means_KD[labels]).square().sum(1, dtype=torch.float64)
        part, number = _sums_and_counts(squares[:, None], labels, len(means_KD))
        apart += part[:, 0]
        counts += number
    apart, counts = all_reduce_sum(apart), all_reduce_sum(counts)
    return apart > _SAME * counts * means_KD.double().square().sum(1)


def _scored(
    rows_ND: Tensor, centroids_KD: Tensor, *, spherical: bool
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For chunks of rows: the rows in float32, their lowest scores and the centroids that have it.

    The score is half of what the squared distance is beyond the squared length of the row,
    |c|^2 / 2 - x.c, or -x.c if spherical.
    """
    centroids = centroids_KD.float()
    missing = -len(centroids) % _WIDTH
    weight = F.pad(-centroids, (0, 0, 0, missing)).T
    halves = centroids.square().sum(1) / 2 * (not spherical)
    bias = F.pad(halves, (0, missing), value=float("inf"))
    with torch.autocast(rows_ND.device.type, enabled=False):
        for chunk in _split(rows_ND):
            rows = chunk.float()
            lowest, labels = _lowest(torch.addmm(bias, rows, weight))
            yield rows, lowest, labels


def _lowest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) lowest score of every row and the first column that has it; may overwrite `scores`."""
    if scores.device.type != "cpu":
        lowest, labels = scores.min(1)
        return lowest, labels
    # A minimum that also tells where takes a CPU several times as long as these passes together.
    lowest = scores.amin(1, keepdim=True)
    columns = scores.shape[1]
    from_the_right = torch.arange(columns, 0, -1, dtype=scores.dtype)
    first = scores.le_(lowest).mul_(from_the_right).amax(1)
    return lowest[:, 0], columns - first.long()


def _sums_and_counts(rows: Tensor, labels: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """(K, D) sums and (K,) counts of the rows by label, the same on every call."""
    if rows.device.type == "cpu":
        # The gradient of a table of K rows that were looked up; `index_add_` is slower by half.
        sums: Tensor = torch.ops.aten.embedding_dense_backward(rows, labels, clusters, -1, False)
        return sums, torch.bincount(labels, minlength=clusters)
    # Additions to one place in any order would round differently each time: a product does not.
    member = labels == torch.arange(clusters, device=rows.device)[:, None]
    return member.to(rows.dtype) @ rows, member.sum(1)


def _split(rows: Tensor) -> tuple[Tensor, ...]:
    return torch.split(rows.detach(), _CPU_ROWS if rows.device.type == "cpu" else _GPU_ROWS)
