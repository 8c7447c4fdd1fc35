"""Clusters against masks: which cluster stands for which class, and how well.

Letters: B batch, C classes, K clusters, H W image, h w feature map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelcontrast.core.distributed import rank, world_size
from pixelcontrast.core.errors import ConfigError, unknown_name
from pixelcontrast.core.types import SegOutput
from pixelcontrast.data import build_eval_loader
from pixelcontrast.evaluation import InferenceConfig, SegModel, predict_labels
from pixelcontrast.evaluation.clusters import ClusterEvaluation
from pixelcontrast.evaluation.confusion import ConfusionMatrix
from pixelcontrast.evaluation.evaluate import LastOutput
from pixelcontrast.evaluation.inference import resized
from pixelcontrast.evaluation.matching import ClusterCounts, MatchedScores
from pixelcontrast.evaluation.probe import LinearProbe
from pixelcontrast.evaluation.protocols import PROTOCOLS, Protocol

if TYPE_CHECKING:
    from pixelcontrast.data import DatasetInfo, Sample
    from pixelcontrast.engine.config import RunConfig
    from pixelcontrast.engine.sources import Sources
    from pixelcontrast.methods.base import Method
    from pixelcontrast.models import Segmentor

PROBE_IMAGES = 200
"""Masks that a linear probe learns from at most; their features are kept in memory."""
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
    protocol: Protocol | None = None,
    see: Callable[[Tensor, Tensor], None] | None = None,
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
        protocol: cut images and merge classes as published numbers did.
        see: called with (B, 3, H, W) images and (B, H, W) masks after the network has seen them.
    """
    classes = info.num_classes if protocol is None else protocol.num_classes
    counts = ClusterCounts(classes, clusters, info.ignore_index, device)
    loader = build_eval_loader(
        samples,
        info,
        batch_size=batch,
        rank=rank() if across_processes else 0,
        world_size=world_size() if across_processes else 1,
        workers=workers,
    )
    for images in loader:
        assert images.mask is not None  # the samples have masks
        image, mask = images.image.to(device), images.mask.to(device)
        if protocol is not None:
            image, mask = middle_square(image, mask, protocol.size)
            mask = protocol.relabel(mask, info.ignore_index)
        labels, _ = predict_labels(network, image, inference)
        counts.update(labels, mask, where=", ".join(images.ids))
        if see is not None:
            see(image, mask)
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


def middle_square(image: Tensor, mask: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Image and mask with their short side brought to `size`, and the middle square of both.

    Args:
        image: (B, 3, H, W).
        mask: (B, H, W); resized to the nearest label.
        size: in pixels.
    """
    height, width = mask.shape[1:]
    zoom = size / min(height, width)
    shape = (max(size, round(height * zoom)), max(size, round(width * zoom)))
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    part = (..., slice(top, top + size), slice(left, left + size))
    pixels = F.interpolate(image.float(), shape, mode="bilinear", align_corners=False)
    labels = F.interpolate(mask[:, None].float(), shape, mode="nearest-exact")[:, 0]
    return pixels[part], labels[part].to(mask.dtype)


def evaluate_clusters(
    segmentor: Segmentor,
    samples: Sequence[Sample],
    info: DatasetInfo,
    config: RunConfig,
    inference: InferenceConfig,
    device: torch.device,
    *,
    labelled: Sequence[Sample] = (),
) -> tuple[ClusterEvaluation, MatchedNetwork]:
    """Both matchings, and a linear probe where there are labelled training images.

    The second value is the network by classes of the data set, for pictures and tables of them.
    Its matching is one-to-one; with more clusters than classes, where that would leave clusters
    without a class, every cluster is matched for itself.

    Args:
        segmentor: in evaluation mode; its outputs are clusters.
        samples: the images that are scored.
        info: their classes.
        config: of the run.
        inference: how images are shown.
        device: where the network is.
        labelled: training images with masks, for the probe.

    Raises:
        ConfigError: `eval.protocol` is unknown or belongs to another data set.
    """
    protocol = _protocol(config.eval.protocol, info)
    network = LastOutput(segmentor)
    probe = _probe(segmentor, labelled, info, config, inference, device)
    probed = ConfusionMatrix(info.num_classes, info.ignore_index, device)

    @torch.no_grad()
    def judge(image: Tensor, mask: Tensor) -> None:
        if probe is not None:
            features = network.features_of(image, inference).features
            probed.update_from_logits(probe.logits(features), mask)

    def count(by: Protocol | None) -> ClusterCounts:
        return count_clusters(
            network,
            samples,
            info,
            segmentor.num_classes,
            inference,
            batch=config.eval.batch if by is None else 1,
            workers=config.data.workers,
            device=device,
            across_processes=False,
            protocol=by,
            see=judge if by is None else None,
        )

    whole = count(None)
    counts = whole if protocol is None else count(protocol)
    groups = {} if protocol is None else {"things": protocol.things, "stuff": protocol.stuff}
    found = ClusterEvaluation(
        protocol=_in_words(config, inference, protocol),
        names=info.classes if protocol is None else protocol.names(info.classes),
        hungarian=counts.match("hungarian"),
        majority=counts.match("majority"),
        groups={name: classes for name, classes in groups.items() if classes},
        probe=None if probe is None else probed.scores(),
    )
    many = segmentor.num_classes > info.num_classes
    shown = whole.match("majority" if many else "hungarian")
    return found, MatchedNetwork(segmentor, shown.class_of_cluster, info.num_classes).to(device)


def _protocol(name: str | None, info: DatasetInfo) -> Protocol | None:
    if name is None:
        return None
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    protocol = PROTOCOLS[name]
    if len(protocol.class_of) != info.num_classes:
        raise ConfigError(
            f"protocol {name!r} is for {len(protocol.class_of)} classes of {protocol.dataset}, "
            f"the data set has {info.num_classes}",
            where="eval.protocol",
            fix=f"set data.name={protocol.dataset}, or eval.protocol=null",
        )
    return protocol


def _in_words(config: RunConfig, inference: InferenceConfig, protocol: Protocol | None) -> str:
    scales = ", ".join(f"{scale:g}" for scale in inference.scales)
    shown = (
        "whole images"
        if protocol is None
        else f"{protocol.about}; middle squares of {protocol.size}"
    )
    centroids = (
        "k-means of undistorted training images after the last step"
        if config.method.final
        else "those of view 1 before the last epoch"
    )
    flip = " and mirrored" if inference.flip else ""
    return f"{shown} at scale {scales}{flip}; centroids: {centroids}"


def _probe(
    segmentor: Segmentor,
    labelled: Sequence[Sample],
    info: DatasetInfo,
    config: RunConfig,
    inference: InferenceConfig,
    device: torch.device,
) -> LinearProbe | None:
    """A linear classifier on frozen features, trained on at most `PROBE_IMAGES` masks."""
    if not labelled:
        return None
    scale = min(inference.scales, key=lambda factor: abs(factor - 1))  # as of LastOutput
    chosen = labelled[:: math.ceil(len(labelled) / PROBE_IMAGES)]
    training = []
    for images in build_eval_loader(
        chosen, info, batch_size=config.eval.batch, workers=config.data.workers
    ):
        assert images.mask is not None  # the caller chose images with masks
        with torch.no_grad():
            features = segmentor(resized(images.image.to(device), scale)).features
        training.append((features, images.mask.to(device)))
    probe = LinearProbe(
        segmentor.decoder.channels, info.num_classes, ignore_index=info.ignore_index, device=device
    )
    probe.fit(training)
    return probe


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
