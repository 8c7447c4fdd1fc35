"""Losses against cluster labels: the classifier's rows are centroids that no gradient reaches.

Cho et al., "PiCIE: Unsupervised Semantic Segmentation using Invariance and Equivariance in
Clustering" (CVPR 2021), section 3. Letters: B batch, D embedding, K clusters, h w feature map.
"""

from __future__ import annotations

from math import log
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pixelcontrast.core.distributed import mean_over_ranks

Balance = Literal["frequency", "none", "inverse", "inverse_sqrt"]
"""How much a pixel counts, by the size of its cluster."""

_LARGEST_RATIO = 100.0
_EPS = 1e-12


def cluster_weights(counts_K: Tensor, balance: Balance) -> Tensor:
    """(K,) float32 weight of a pixel of each cluster, from the pixels n_k of all N.

    * `frequency`: n_k / N, what the released code does; large clusters rule.
    * `none`: 1.
    * `inverse`: N / (K+ n_k) for the K+ clusters in use, which gives each the same share of the
      loss, as DeepCluster's sampling does (Caron et al. 2018).
    * `inverse_sqrt`: sqrt(N / n_k).

    Empty clusters have weight 0 (`none`: no pixel to weigh). The last two are clipped at 100 times
    the smallest weight, so that a cluster of a few noisy pixels cannot rule the loss.

    Args:
        counts_K: (K,) pixels of each cluster, over all processes.
        balance: one of the four.
    """
    counts = counts_K.double()
    if balance == "none":
        return torch.ones_like(counts, dtype=torch.float32)
    total = counts.sum().clamp(min=1)
    if balance == "frequency":
        return (counts / total).float()
    used = counts > 0
    share = total / counts.clamp(min=1)
    weights = share.sqrt() if balance == "inverse_sqrt" else share / used.sum().clamp(min=1)
    smallest = torch.where(used, weights, float("inf")).min()
    return torch.where(used, weights.clamp(max=_LARGEST_RATIO * smallest), 0).float()


def prototype_logits(
    features: Tensor,
    centroids_KD: Tensor,
    *,
    temperature: float = 1.0,
    normalise_centroids: bool = True,
) -> Tensor:
    """Scores of a classifier whose rows are centroids: products with features of unit length.

    Args:
        features: (B, D, h, w); their direction counts.
        centroids_KD: (K, D), without gradient.
        temperature: divides the scores; the paper has none (1).
        normalise_centroids: the cosine; else the product with centroids of any length, the
            released code, whose best score need not be that of the nearest centroid.

    Returns:
        (B, K, h, w) float32.
    """
    with torch.autocast(features.device.type, enabled=False):
        unit = F.normalize(features.float(), dim=1, eps=_EPS)
        return _products(unit, centroids_KD, temperature, normalise_centroids)


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights_K: Tensor) -> Tensor:
    """The mean of -log softmax(logits)[label], every pixel weighted by its label.

    Args:
        logits: (B, K, h, w).
        labels: (B, h, w) clusters; pixels with a negative one do not count.
        weights_K: (K,).

    Returns:
        A float32 scalar; on several processes the share of this one in the mean over all. Without
        any weight a zero attached to the graph.
    """
    target = labels.long()
    weights = weights_K.float()
    valid = target >= 0
    losses = F.cross_entropy(
        logits.float(), target.masked_fill(~valid, -1), weights, ignore_index=-1, reduction="none"
    )
    counted = weights[target.clamp(min=0)] * valid
    return mean_over_ranks(losses.sum(), counted.sum())


def prototype_cross_entropy(
    features: Tensor,
    centroids_KD: Tensor,
    labels: Tensor,
    weights_K: Tensor,
    *,
    temperature: float = 1.0,
    normalise_centroids: bool = True,
) -> Tensor:
    """Weighted cross-entropy of `prototype_logits`: PiCIE, equation 3, for one set of labels.

    Args:
        features: (B, D, h, w); their direction counts.
        centroids_KD: (K, D), without gradient.
        labels: (B, h, w) clusters; pixels with a negative one do not count.
        weights_K: (K,) from `cluster_weights`.
        temperature: see `prototype_logits`.
        normalise_centroids: see `prototype_logits`.

    Returns:
        A float32 scalar as of `weighted_cross_entropy`.
    """
    logits = prototype_logits(
        features, centroids_KD, temperature=temperature, normalise_centroids=normalise_centroids
    )
    return weighted_cross_entropy(logits, labels, weights_K)


class ClusterView(NamedTuple):
    """One view of a batch and the clustering of that view."""

    features: Tensor
    """(B, D, h, w); the same place is the same point of the scene in both views."""
    labels: Tensor
    """(B, h, w) clusters, numbered as the centroids of this view."""
    centroids: Tensor
    """(K, D)."""
    weights: Tensor
    """(K,)."""


class PicieLoss(NamedTuple):
    """The parts of the loss of PiCIE."""

    l11: Tensor
    """Features of view 1 against the clusters of view 1."""
    l22: Tensor
    l12: Tensor
    """Features of view 1 against the clusters of view 2."""
    l21: Tensor
    distance: Tensor | None
    """Mean squared difference of the two views' unit features; None without this term."""

    @property
    def within(self) -> Tensor:
        """Each view against its own clusters: invariance to colour within the view."""
        return (self.l11 + self.l22) / 2

    @property
    def cross(self) -> Tensor:
        """Each view against the clusters of the other."""
        return (self.l12 + self.l21) / 2

    @property
    def terms(self) -> dict[str, Tensor]:
        """Weighted terms whose sum is the loss."""
        if self.distance is None:
            return {"within": self.within / 2, "cross": self.cross / 2}
        return {"within": self.within / 4, "cross": self.cross / 4, "mse": self.distance / 2}

    @property
    def total(self) -> Tensor:
        """The loss."""
        return torch.stack(list(self.terms.values())).sum()


def picie_loss(
    view1: ClusterView,
    view2: ClusterView,
    *,
    mse: bool = False,
    temperature: float = 1.0,
    normalise_centroids: bool = True,
) -> PicieLoss:
    """Within- and cross-view loss: PiCIE, equations 5 to 7, with means where it has sums.

    `L = (within + cross) / 2`; with `mse`, `L = (L + mean (z1 - z2)^2) / 2`.

    Args:
        view1: features aligned with those of `view2`; the clusters of each are its own.
        view2: the other view, with as many clusters or not.
        mse: add the distance of the two views' features; off in the released scripts.
        temperature: see `prototype_logits`.
        normalise_centroids: see `prototype_logits`.
    """
    with torch.autocast(view1.features.device.type, enabled=False):
        unit1, unit2 = (
            F.normalize(view.features.float(), dim=1, eps=_EPS) for view in (view1, view2)
        )

        def against(unit: Tensor, clusters: ClusterView) -> Tensor:
            logits = _products(unit, clusters.centroids, temperature, normalise_centroids)
            return weighted_cross_entropy(logits, clusters.labels, clusters.weights)

        distance = None
        if mse:
            squares = (unit1 - unit2).square()
            distance = mean_over_ranks(squares.sum(), squares.new_tensor(squares.numel()))
        return PicieLoss(
            l11=against(unit1, view1),
            l22=against(unit2, view2),
            l12=against(unit1, view2),
            l21=against(unit2, view1),
            distance=distance,
        )


def mixture_factors(clusters: int, more_clusters: int) -> tuple[float, float]:
    """Factors of the losses of a coarse and a fine clustering that equalise their first values.

    An uninformed classifier of K clusters starts at log K: `a = log K' / (log K + log K')` for the
    one with K clusters and `b = log K / (log K + log K')` for the one with K'. A definition of this
    package; the paper's second clustering ("+H") is not in the released code.

    Args:
        clusters: K, at least 2.
        more_clusters: K', at least 2.
    """
    coarse, fine = log(clusters), log(more_clusters)
    return fine / (coarse + fine), coarse / (coarse + fine)


def _products(
    unit: Tensor, centroids_KD: Tensor, temperature: float, normalise_centroids: bool
) -> Tensor:
    rows = centroids_KD.detach().float()
    if normalise_centroids:
        rows = F.normalize(rows, dim=1, eps=_EPS)
    scores = (rows / temperature) @ unit.flatten(2)
    return scores.reshape(len(unit), len(rows), *unit.shape[2:])
