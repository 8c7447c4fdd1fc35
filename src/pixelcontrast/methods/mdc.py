"""Modified DeepCluster: the baseline of PiCIE with one view and a classifier that is trained.

Caron et al., "Deep Clustering for Unsupervised Learning of Visual Features" (ECCV 2018), for pixels
as in Cho et al., "PiCIE" (CVPR 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch.optim import Optimizer

from pixelcontrast.core.seeding import generator_for
from pixelcontrast.core.types import Batch, LossReport
from pixelcontrast.losses import weighted_cross_entropy
from pixelcontrast.methods.clustering import IMAGES, ClusterConfig, ClusteringMethod, Views
from pixelcontrast.models import Segmentor

_DEVIATION = 0.01


class MDC(ClusteringMethod):
    """Learns the clusters of one view with a new linear classifier in every epoch."""

    views: ClassVar[int] = 1
    Config: ClassVar[type] = ClusterConfig
    config: ClusterConfig

    def view_features(self, network: Segmentor, batch: Batch) -> Views:
        """The features of view 1."""
        return (network(batch.image).features,)

    @torch.no_grad()
    def begin_epoch(self, epoch: int, optimizer: Optimizer | None) -> None:
        """A new classifier, normal with deviation 0.01, that the optimiser knows nothing of."""
        super().begin_epoch(epoch, optimizer)
        convolution = self.classifier_convolution()
        assert convolution.bias is not None
        generator = generator_for("cpu", self.task.seed, "classifier", epoch)
        drawn = torch.randn(convolution.weight.shape, generator=generator)
        convolution.weight.copy_(_DEVIATION * drawn)
        convolution.bias.zero_()
        if optimizer is not None:
            for parameter in convolution.parameters():
                optimizer.state.pop(parameter, None)

    def losses(self, batch: Mapping[str, Batch]) -> LossReport:
        """Weighted cross-entropy against the clusters."""
        images = batch[IMAGES]
        labels = self.labels_of(images)["view1"]
        features = self.view_features(self.segmentor, images)[0]
        with torch.autocast(features.device.type, enabled=False):
            logits = self.segmentor.classifier(features.float())
        loss = weighted_cross_entropy(logits, labels, self.weights["view1"])
        return LossReport({"cluster": loss}, self.epoch_stats)
