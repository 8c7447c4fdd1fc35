"""Methods that learn from clusters of their own features, found anew in every epoch.

An epoch clusters the features of all images (`cluster`), labels every pixel with its cluster
(`label`), and trains on these labels. The engine calls the three in turn and gives the images; what
they share is here: a clustering of each view, labels on disk or from a frozen network, the weights
of clusters, and the numbers that tell whether the clusters collapse.

Letters: B batch, C clusters, D embedding, N pixels, H W image, h w feature map.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixelcontrast.core.distributed import all_reduce_sum
from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.types import Batch
from pixelcontrast.data import PairConfig, Pairing
from pixelcontrast.data.label_maps import LabelMaps
from pixelcontrast.data.loaders import Stream
from pixelcontrast.losses import Balance, cluster_weights
from pixelcontrast.memory import MiniBatchKMeans
from pixelcontrast.methods.base import Method
from pixelcontrast.methods.cluster_statistics import cluster_statistics, matched_share, pair_counts
from pixelcontrast.methods.kmeans_stream import KMeansConfig, KMeansStream, rows_of
from pixelcontrast.models import Segmentor

if TYPE_CHECKING:
    from torch.optim import Optimizer

IMAGES = "images"
"""Name of the one stream."""

Views: TypeAlias = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """What PiCIE and its baseline share."""

    clusters: int | None = None
    """K. None: as many as the data set has classes."""
    balance: Balance = "inverse"
    """How much a pixel counts by the size of its cluster. `inverse` gives every cluster the same
    share of the loss, as in DeepCluster; the released code has `frequency`."""
    final: bool = True
    """Cluster images without distortion once more after the last step, and keep these centroids
    (the released `repeats=1`); else those of view 1 from before the last epoch."""
    label_source: Literal["cached", "frozen_copy"] = "cached"
    """Where a step's labels come from: files that a pass over all images fills (released code), or
    a copy of the network as it was at the beginning of the epoch. The copy saves that pass and
    costs a forward pass of every view in each step; labels are the same, and clusters are weighed
    by the sizes that k-means counted."""
    kmeans: KMeansConfig = field(default_factory=KMeansConfig)
    views: PairConfig = field(default_factory=PairConfig)
    """Crop, flip and enlargement; the colours are those of the section `strong`."""

    def __post_init__(self) -> None:
        if self.clusters is not None and not 2 <= self.clusters <= 254:
            raise ConfigError(
                f"{self.clusters} clusters are impossible",
                where="method.clusters",
                fix="use 2 to 254",
            )


class ClusteringMethod(Method):
    """A method that alternates between clustering and training.

    Args:
        config: an instance of `Config`.
        segmentor: the network; its outputs are the clusters.
        task: classes are clusters here; it must tell the size of the training views.
        optim: optimiser and schedule.
    """

    streams: tuple[Stream, ...] = (Stream(IMAGES, labelled=False, pair=Pairing()),)  # type: ignore[misc]
    finds_clusters: ClassVar[bool] = True
    views: ClassVar[int]
    """How many views are clustered."""
    config: Any

    def __init__(self, config: Any, segmentor: Segmentor, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, segmentor, *args, **kwargs)
        if not segmentor.config.unit_features:
            raise ConfigError(
                "clusters are told apart by directions of features",
                where="model.unit_features=false",
                fix="set model.unit_features=true",
            )
        if self.ema is not None:
            raise ConfigError(
                "clusters are numbered anew in every epoch, so weights cannot be averaged",
                where="train.ema",
                fix="set train.ema=null",
            )
        if self.task.crop is None:
            raise ConfigError("the size of the views is not known", where="view.crop")
        self.grid = feature_grid(segmentor, self.task.crop)
        pairing = Pairing(config.views, self.grid, second=self.views == 2)
        self.streams = (Stream(IMAGES, labelled=False, pair=pairing),)
        width = segmentor.decoder.channels
        self.kmeans = nn.ModuleDict(
            {n: MiniBatchKMeans(k, width, spherical=self.cosine) for n, k in self.sizes().items()}
        )
        self.weights = nn.ParameterDict(
            {n: nn.Parameter(torch.ones(k), requires_grad=False) for n, k in self.sizes().items()}
        )
        self.labels: LabelMaps | None = None
        self.frozen = segmentor.inference_copy() if config.label_source == "frozen_copy" else None
        self.epoch_stats: Mapping[str, float] = {}

    # What a method defines

    @property
    def cosine(self) -> bool:
        """Whether centroids are compared by their directions alone."""
        return True

    def sizes(self) -> dict[str, int]:
        """Name -> number of clusters of every clustering: `view1`, `view2` and finer ones."""
        return {f"view{view + 1}": self.task.num_classes for view in range(self.views)}

    @abstractmethod
    def view_features(self, network: Segmentor, batch: Batch) -> Views:
        """(B, D, h, w) features of each view; the same cell is the same point of the scene."""

    def begin_epoch(self, epoch: int, optimizer: Optimizer | None) -> None:
        """Called when the labels of an epoch are there, before its first step."""
        if self.frozen is not None:
            self.frozen.encoder.load_state_dict(self.segmentor.encoder.state_dict())
            self.frozen.decoder.load_state_dict(self.segmentor.decoder.state_dict())

    # Clusters in place of classes

    @classmethod
    def output_names(cls, config: Any, classes: Sequence[str]) -> tuple[str, ...]:
        """Names of the clusters.

        Raises:
            ConfigError: their number is neither set nor known from the data.
        """
        count = config.clusters or len(classes)
        if count < 2:
            raise ConfigError(
                "how many clusters are wanted? The data set names no classes",
                where="method.clusters",
                fix="add --classes 8, or method.clusters=8",
            )
        return tuple(f"cluster_{k:02d}" for k in range(count))

    # The phases of an epoch

    def cluster(self, epoch: int, batches: Iterable[Batch], images: int) -> None:
        """Find the centroids of every view; all processes take part.

        Args:
            epoch: names the draws.
            batches: all images once, in equally many batches on every process.
            images: their number over all processes.

        Raises:
            DataError: fewer pixels than clusters.
            TrainingError: features that are not finite.
        """
        every = [tuple(n for n in self.kmeans if _view(n) == v) for v in range(self.views)]
        self._cluster(epoch, batches, images, partial(self.view_features, self.segmentor), every)

    @torch.no_grad()
    def label(
        self, epoch: int, batches: Iterable[Batch], labels: LabelMaps
    ) -> tuple[dict[str, list[int]], dict[str, float]]:
        """Label every pixel with its cluster.

        Args:
            epoch: the first one has no clusters before it to compare with.
            batches: all images once over all processes; a frozen copy does not look at them.
            labels: where the labels go.

        Returns:
            Pixels of each cluster by clustering, and numbers for the log.
        """
        if self.frozen is not None:
            counted = {name: self._means(name).counts for name in self.kmeans}
            return {n: c.tolist() for n, c in counted.items()}, self._statistics(counted)
        clusters = self.task.num_classes
        counts = {name: torch.zeros_like(self._means(name).counts) for name in self.kmeans}
        across = torch.zeros_like(counts["view1"]).new_zeros(clusters, clusters)
        before = torch.zeros_like(across)
        with evaluating(self.segmentor):
            for batch in batches:
                if not batch.ids:
                    continue
                views = self._unit(partial(self.view_features, self.segmentor), batch)
                found = self._assigned(views)
                for name, assigned in found.items():
                    counts[name] += torch.bincount(assigned, minlength=len(counts[name]))
                    maps = assigned.view(len(batch.ids), *views[0].shape[2:])
                    labels.write(name, batch.ids, maps.cpu().numpy())
                earlier = self.segmentor.classifier(views[0]).argmax(1).flatten()
                before += pair_counts(earlier, found["view1"], clusters)
                if "view2" in found:
                    across += pair_counts(found["view1"], found["view2"], clusters)
        labels.flush()
        totals = {name: all_reduce_sum(count) for name, count in counts.items()}
        stats = self._statistics(totals)
        if epoch:
            stats["clusters_kept"] = matched_share(all_reduce_sum(before))
        if self.views > 1:
            stats["view_agreement"] = matched_share(all_reduce_sum(across))
        return {name: total.tolist() for name, total in totals.items()}, stats

    def use_labels(
        self,
        labels: LabelMaps,
        counts: Mapping[str, Sequence[int]],
        stats: Mapping[str, float],
    ) -> None:
        """Train on these labels from now on."""
        self.labels, self.epoch_stats = labels, dict(stats)
        for name, count in counts.items():
            weights = cluster_weights(torch.tensor(count), self.config.balance)
            self.weights[name].data.copy_(weights)

    def finish(self, epoch: int, batches: Iterable[Batch], images: int) -> None:
        """Cluster undistorted images and classify by these centroids from now on."""

        def plain(batch: Batch) -> Views:
            return (self.segmentor(batch.image).features,)

        self._cluster(epoch, batches, images, plain, [("view1",)])
        self.adopt_centroids()

    # Parts

    @torch.no_grad()
    def adopt_centroids(self) -> None:
        """Make the centroids of view 1 the weights of the classifier."""
        convolution = self.classifier_convolution()
        assert convolution.bias is not None
        scale = getattr(self.config, "temperature", 1.0)
        convolution.weight.copy_(self._means("view1").centroids[:, :, None, None] / scale)
        convolution.bias.zero_()

    def classifier_convolution(self) -> nn.Conv2d:
        """The 1x1 convolution of the classifier."""
        classifier = self.segmentor.classifier
        assert isinstance(classifier, nn.Sequential)  # unit features need one
        convolution = classifier[1]
        assert isinstance(convolution, nn.Conv2d)
        return convolution

    def stored(self) -> dict[str, int]:
        """Name -> number of clusters of the clusterings whose labels lie on disk."""
        return self.sizes() if self.frozen is None else {}

    def labels_of(self, batch: Batch) -> dict[str, Tensor]:
        """(B, h, w) the clusters of a training batch, by clustering."""
        if self.frozen is not None:
            return self._frozen_labels(self.frozen, batch)
        assert self.labels is not None  # the engine gives them before the first step of an epoch
        found = {}
        for name in self.kmeans:
            maps = torch.from_numpy(self.labels.read(name, batch.ids))
            if batch.image.is_cuda:
                maps = maps.pin_memory()
            found[name] = maps.to(batch.image.device, non_blocking=True)
        return found

    @torch.no_grad()
    def origin(self, epoch: int) -> str:
        """What labels made now, for this epoch, come from: a hash of network and settings."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.task.seed} {epoch} {self.grid} {self.config}".encode())
        for part in (self.segmentor.encoder, self.segmentor.decoder):
            for name, value in part.state_dict().items():
                digest.update(name.encode())
                digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    @torch.no_grad()
    def _cluster(
        self,
        epoch: int,
        batches: Iterable[Batch],
        images: int,
        features: Callable[[Batch], Views],
        names: Sequence[Sequence[str]],
    ) -> None:
        """Stream the set once; `names` are those of the clusterings of each view."""
        stream = KMeansStream(
            [[self._means(name) for name in view] for view in names],
            self.config.kmeans,
            images=images,
            seed=self.task.seed,
            epoch=epoch,
        )
        with evaluating(self.segmentor):
            for batch in batches:
                stream.add(batch.ids, self._unit(features, batch))
            stream.finish()

    @torch.no_grad()
    def _frozen_labels(self, network: Segmentor, batch: Batch) -> dict[str, Tensor]:
        with evaluating(network):
            views = self._unit(partial(self.view_features, network), batch)
        shape = (len(batch.ids), *views[0].shape[2:])
        return {name: found.view(shape) for name, found in self._assigned(views).items()}

    def _assigned(self, views: Views) -> dict[str, Tensor]:
        """(N,) the cluster of every pixel, by clustering."""
        return {n: self._means(n).assign(rows_of(views[_view(n)])) for n in self.kmeans}

    def _statistics(self, counts: Mapping[str, Tensor]) -> dict[str, float]:
        """Numbers for the log from the pixels of each cluster."""
        stats: dict[str, float] = {}
        for name, count in counts.items():
            stats |= {f"{k}_{name}": v for k, v in cluster_statistics(count).items()}
            stats[f"kmeans_loss_{name}"] = float(self._means(name).loss)
        return stats

    def _unit(self, features: Callable[[Batch], Views], batch: Batch) -> Views:
        """Features of unit length; none of a process whose share of a batch is empty."""
        if not batch.ids:
            empty = torch.zeros(0, self.segmentor.decoder.channels, *self.grid, device=self.device)
            return (empty,) * self.views
        return tuple(F.normalize(f.float(), dim=1, eps=1e-12) for f in features(batch))

    def _means(self, name: str) -> MiniBatchKMeans:
        found = self.kmeans[name]
        assert isinstance(found, MiniBatchKMeans)
        return found


@torch.no_grad()
def feature_grid(segmentor: Segmentor, size: tuple[int, int]) -> tuple[int, int]:
    """(h, w) of the features of an image of `size`."""
    with evaluating(segmentor):
        device = segmentor.mean.device
        height, width = segmentor(torch.zeros(1, 3, *size, device=device)).features.shape[2:]
    return height, width


@contextmanager
def evaluating(segmentor: Segmentor) -> Iterator[None]:
    """Evaluation mode for a while: clustering must not move the statistics of batch norm."""
    training = segmentor.training
    segmentor.eval()
    try:
        yield
    finally:
        segmentor.train(training)


def _view(name: str) -> int:
    """The view of a clustering: `view2_fine` -> 1."""
    return int(name.removeprefix("view").partition("_")[0]) - 1
