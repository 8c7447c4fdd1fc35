"""Clusters against masks: which cluster stands for which class, and how well.

Letters: B batch, C classes, K clusters, H W image, h w feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from pixelcontrast.core.distributed import rank, world_size
from pixelcontrast.core.types import SegOutput
from pixelcontrast.data import build_eval_loader
from pixelcontrast.evaluation import InferenceConfig, SegModel, predict_labels
from pixelcontrast.evaluation.clusters import ClusterEvaluation
from pixelcontrast.evaluation.matching import ClusterCounts, MatchedScores

if TYPE_CHECKING:
    from pixelcontrast.data import DatasetInfo, Sample
    from pixelcontrast.engine.config import RunConfig
    from pixelcontrast.engine.sources import Sources
    from pixelcontrast.methods.base import Method

_NEVER = -1e4
"""Score of a class without a cluster; finite, so that up-sampling leaves it finite."""


def count_clusters(
    network: SegModel,
    samples: Sequence[Sample],
    info: DatasetInfo,
    clusters: int,
    inference: InferenceConfig,
    *,
    batch: int,
    workers: int | Literal["auto"],
    device: torch.device,
    across_processes: bool,
) -> ClusterCounts:
    """Pixels of each class in each cluster over all samples.

    Args:
        network: in evaluation mode; its outputs are clusters.
        samples: images with masks.
        info: their classes.
        clusters: K.
        inference: how images are shown.
        batch: images of a pass.
        workers: loading processes.
        device: where the network is.
        across_processes: all processes share the images, and all get the sum.
    """
    counts = ClusterCounts(info.num_classes, clusters, info.ignore_index, device)
    loader = build_eval_loader(
        samples,
        info,
        batch_size=batch,
        rank=rank() if across_processes else 0,
        world_size=world_size() if across_processes else 1,
        workers=workers,
    )
    for images in loader:
        labels, _ = predict_labels(network, images.image.to(device), inference)
        assert images.mask is not None  # the samples have masks
        counts.update(labels, images.mask.to(device), where=", ".join(images.ids))
    return counts.reduce() if across_processes else counts


def score_clusters(method: Method, config: RunConfig, sources: Sources) -> MatchedScores:
    """Scores of a method's network on the validation images after one-to-one matching."""
    network = method.segmentor
    training = network.training
    network.eval()
    counts = count_clusters(
        network,
        sources.val,
        sources.dataset.info,
        network.num_classes,
        replace(config.eval.inference, align_corners=config.model.align_corners),
        batch=config.eval.batch,
        workers=config.data.workers,
        device=method.device,
        across_processes=True,
    )
    network.train(training)
    return counts.match("hungarian")


def cluster_evaluation(
    counts: ClusterCounts, config: RunConfig, inference: InferenceConfig
) -> ClusterEvaluation:
    """Both matchings of a table of counts, with the protocol in words."""
    scales = ", ".join(f"{scale:g}" for scale in inference.scales)
    centroids = (
        "k-means of undistorted training images after the last step"
        if config.method.final
        else "those of view 1 before the last epoch"
    )
    flip = ", mirrored too" if inference.flip else ""
    protocol = f"images ({inference.mode}) at scale {scales}{flip}; centroids: {centroids}"
    return ClusterEvaluation(protocol, counts.match("hungarian"), counts.match("majority"))


class MatchedNetwork(nn.Module):
    """A network of clusters as one of classes: a class scores as high as its best cluster.

    Args:
        segmentor: the network.
        class_of_cluster: (K,) class of each cluster, -1 for none.
        num_classes: C.
    """

    def __init__(
        self, segmentor: nn.Module, class_of_cluster: Sequence[int], num_classes: int
    ) -> None:
        super().__init__()
        self.segmentor = segmentor
        owners = torch.tensor(class_of_cluster)
        owns = owners[None] == torch.arange(num_classes)[:, None]
        self.register_buffer("owns", owns)

    owns: Tensor
    """(C, K) bool."""

    def forward(self, image: Tensor) -> SegOutput:
        """The network's output with (B, C, h, w) scores of classes."""
        output: SegOutput = self.segmentor(image)
        scores = output.logits.float()
        best = [
            scores[:, own].amax(dim=1) if own.any() else torch.full_like(scores[:, 0], _NEVER)
            for own in self.owns
        ]
        return replace(output, logits=torch.stack(best, dim=1))
