"""Numbers that tell whether clusters are of use, without any label.

Letters: C clusters, N pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pixelcontrast.core.assignment import assign_pairs

_LARGEST_SHARE = 0.9


def cluster_statistics(counts_C: Tensor) -> dict[str, float]:
    """How evenly the clusters share the pixels.

    Returns:
        `cluster_entropy`: of the sizes, 1 for clusters of one size, 0 for a single one;
        `largest_cluster`: share of the pixels in it; `used_clusters`: those that hold any.
    """
    counts = counts_C.double().cpu()
    shares = counts / counts.sum().clamp(min=1)
    entropy = torch.special.entr(shares).sum() / math.log(max(2, len(counts)))
    return {
        "cluster_entropy": float(entropy),
        "largest_cluster": float(shares.max()),
        "used_clusters": float((counts > 0).sum()),
    }


def pair_counts(first_N: Tensor, second_N: Tensor, clusters: int) -> Tensor:
    """(C, C) how many pixels have each pair of clusters in two clusterings."""
    pairs = torch.bincount(first_N * clusters + second_N, minlength=clusters**2)
    return pairs.view(clusters, clusters)


def matched_share(pairs_CC: Tensor) -> float:
    """Share of the pixels on which two clusterings agree, after the best one-to-one renaming."""
    pairs = pairs_CC.cpu()
    return float(pairs[assign_pairs(pairs, maximise=True)].sum() / pairs.sum().clamp_min(1))


def collapse_warning(stats: Mapping[str, float], sizes: Mapping[str, int]) -> str | None:
    """One sentence when a clustering has collapsed, or is about to."""
    for name, count in sizes.items():
        largest = stats.get(f"largest_cluster_{name}", 0.0)
        used = stats.get(f"used_clusters_{name}", count)
        if largest > _LARGEST_SHARE:
            return f"{100 * largest:.0f} % of the pixels lie in one cluster of {name}"
        if used < count / 2:
            return f"only {used:.0f} of {count} clusters of {name} hold a pixel"
    return None
