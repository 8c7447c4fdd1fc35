"""PiCIE: segmentation without labels, by clusters that colour and place do not change.

Cho, Mall, Bala, Hariharan, "PiCIE: Unsupervised Semantic Segmentation using Invariance and
Equivariance in Clustering", CVPR 2021 (arXiv 2103.17070).

Every image has two views with colours of their own. View 1 is cropped and flipped; of view 2 the
*feature map* is. Each view is clustered for itself in every epoch, and the network learns both sets
of clusters from both views. The classifier's rows are the centroids and stay fixed for the epoch.

Deviation: see docs/methods/picie.md. Letters: B batch, C clusters, D embedding, h w feature map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor
from torch.optim import Optimizer

from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.types import Batch, LossReport
from pixelcontrast.data import crop_features
from pixelcontrast.losses import ClusterView, mixture_factors, picie_loss
from pixelcontrast.methods.clustering import IMAGES, ClusterConfig, ClusteringMethod, Views
from pixelcontrast.models import Segmentor

_FINE = "_fine"


@dataclass(frozen=True, slots=True)
class PiCIEConfig(ClusterConfig):
    """Settings of PiCIE."""

    over_clusters: int | None = None
    """Clusters of a second, finer clustering of the same features (the paper's "+H", whose
    definition is ours; 100 is a good number); None: none."""
    classifier: Literal["cosine", "dot"] = "cosine"
    """Compare features with directions of centroids, in labels, loss and prediction alike; `dot`:
    labels by distance, classes by the product with centroids of any length (released code)."""
    temperature: float = 1.0
    """Divides the scores; the paper has none (1)."""
    mse: bool = False
    """Add the squared difference of both views' features; off in the released scripts."""

    def __post_init__(self) -> None:
        # No zero-argument super(): a dataclass with slots is another class than the one written.
        ClusterConfig.__post_init__(self)
        if not self.temperature > 0:
            raise ConfigError("a temperature must be positive", where="method.temperature")
        if self.over_clusters is not None and self.over_clusters < 2:
            raise ConfigError("at least 2 are needed", where="method.over_clusters")


class PiCIE(ClusteringMethod):
    """Learns the clusters of both views from both views."""

    views: ClassVar[int] = 2
    Config: ClassVar[type] = PiCIEConfig
    config: PiCIEConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.segmentor.classifier.requires_grad_(False)  # it is given, not learnt

    @property
    def cosine(self) -> bool:
        """Whether centroids are compared by their directions alone."""
        return self.config.classifier == "cosine"

    def sizes(self) -> dict[str, int]:
        """Both views, and both again with more clusters."""
        sizes = ClusteringMethod.sizes(self)
        if self.config.over_clusters is not None:
            sizes |= {f"{name}{_FINE}": self.config.over_clusters for name in list(sizes)}
        return sizes

    def view_features(self, network: Segmentor, batch: Batch) -> Views:
        """z1 = f(G(P1(x))) and z2 = G(f(P2(x))), in passes of their own (released code)."""
        assert batch.grid_box is not None  # the stream is one of pairs
        first = network(batch.image).features
        second = network(batch.strong[0]).features
        return first, crop_features(second, batch.grid_box)

    def begin_epoch(self, epoch: int, optimizer: Optimizer | None) -> None:
        """Classify by the centroids of view 1."""
        super().begin_epoch(epoch, optimizer)
        self.adopt_centroids()

    def losses(self, batch: Mapping[str, Batch]) -> LossReport:
        """L = (L_within + L_cross) / 2 (equations 5 to 7), weighed over both clusterings."""
        images = batch[IMAGES]
        labels = self.labels_of(images)
        features = self.view_features(self.segmentor, images)
        terms: dict[str, Tensor] = {}
        for suffix, factor in self._factors().items():
            views = [
                ClusterView(
                    features[view],
                    labels[name],
                    self._means(name).centroids,
                    self.weights[name],
                )
                for view, name in enumerate((f"view1{suffix}", f"view2{suffix}"))
            ]
            loss = picie_loss(
                *views,
                mse=self.config.mse,
                temperature=self.config.temperature,
                normalise_centroids=self.cosine,
            )
            terms |= {f"{name}{suffix}": factor * term for name, term in loss.terms.items()}
        return LossReport(terms, self.epoch_stats)

    def _factors(self) -> dict[str, float]:
        """Weight of each clustering in the loss."""
        if self.config.over_clusters is None:
            return {"": 1.0}
        coarse, fine = mixture_factors(self.task.num_classes, self.config.over_clusters)
        return {"": coarse, _FINE: fine}
