"""Alignment and uniformity of a whole data set in one pass, over any number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

import torch
from torch import Tensor
from torch import distributed as dist

from pixelcontrast.core.distributed import all_reduce_sum, gather_rows, world_size
from pixelcontrast.core.errors import ConfigError
from pixelcontrast.core.labels import resize_labels
from pixelcontrast.core.types import SegOutput
from pixelcontrast.evaluation.feature_sample import FeatureSample, pixel_keys
from pixelcontrast.evaluation.feature_scores import ClassFeatures, FeatureScores
from pixelcontrast.evaluation.separation import (
    NO_DIRECTION,
    neighbourhood_uniformity,
    sampled_mean_distance,
    uniformity,
)

CHUNK_ROWS = 8192
"""Features that are widened to float64 at a time: 16 MiB for a width of 256."""


@dataclass(frozen=True, slots=True)
class FeatureConfig:
    """How features are measured."""

    sample: int = 4096
    """M: features of a class whose pairs are measured for A; a class with fewer is exact."""
    seed: int = 0
    """Of the sample."""
    min_count: int = 1
    """Classes with fewer features are left out. The definition keeps a class with one feature,
    although its alignment is 0 whatever the network does."""
    neighbours: tuple[int, ...] = (1, 3, 5)
    """The l of U_l; those that need more classes than have features are left out."""

    def __post_init__(self) -> None:
        """Refuses what has no meaning.

        Raises:
            ConfigError: a sample below 2, a count below 1 or an l below 1.
        """
        if self.sample < 2 or self.min_count < 1 or min(self.neighbours, default=1) < 1:
            raise ConfigError(
                "feature metrics need sample >= 2, min_count >= 1 and neighbours >= 1, got "
                f"{self.sample}, {self.min_count} and {self.neighbours}"
            )


class FeatureMeter:
    """Running class sums and class samples of one layer.

    The sums are float64 and additive, so that everything but A is exact and independent of the
    split of the images over batches and processes; the sample is independent of it by its keys.

    Args:
        layer: names the features in the scores.
        num_classes: C.
        width: F.
        config: None for the defaults.
        device: where the sums live.
    """

    def __init__(
        self,
        layer: str,
        num_classes: int,
        width: int,
        config: FeatureConfig | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.layer = layer
        self.config = config or FeatureConfig()
        self.counts = torch.zeros(num_classes, dtype=torch.int64, device=device)
        self.sums = torch.zeros(num_classes, width, dtype=torch.float64, device=device)
        self.dropped = torch.zeros((), dtype=torch.int64, device=device)
        self.sampled = FeatureSample(num_classes, self.config.sample)

    @torch.no_grad()
    def update(self, features: Tensor, target: Tensor, ids: Sequence[str]) -> None:
        """Adds a batch at the resolution of the features; labels are resized to it.

        Args:
            features: (B, F, h, w), any floating type, any length.
            target: (B, H, W) class ids; anything outside 0 .. C-1 is left out.
            ids: B names of the images, each unique in the data set.
        """
        labels = resize_labels(target, (features.shape[-2], features.shape[-1]))
        for vectors, row, name in zip(features.flatten(2).mT, labels.flatten(1), ids, strict=True):
            valid = ((row >= 0) & (row < len(self.counts))).nonzero().flatten()
            for places in torch.split(valid, CHUNK_ROWS):
                keys = pixel_keys(self.config.seed, name, places)
                self._add(vectors[places], row[places].long(), keys)

    def _add(self, vectors: Tensor, labels: Tensor, keys: Tensor) -> None:
        wide = vectors.double()
        length = wide.norm(dim=1, keepdim=True)
        usable = ((length > 0) & length.isfinite()).flatten()
        self.dropped += (~usable).sum()
        unit, labels = (wide / length)[usable], labels[usable]
        member = torch.nn.functional.one_hot(labels, len(self.counts))
        self.counts += member.sum(0)
        self.sums += member.T.double() @ unit
        self.sampled.add(vectors[usable], labels, keys[usable])

    def merge(self, other: FeatureMeter) -> None:
        """Adds what `other` has seen."""
        self.counts += other.counts.to(self.counts.device)
        self.sums += other.sums.to(self.sums.device)
        self.dropped += other.dropped.to(self.dropped.device)
        self.sampled.merge(other.sampled)

    def reduce(self) -> FeatureMeter:
        """What all processes have seen, a new meter. Every process must call it."""
        classes, width = self.sums.shape
        total = FeatureMeter(self.layer, classes, width, self.config, self.sums.device)
        total.counts += all_reduce_sum(self.counts)
        total.sums += all_reduce_sum(self.sums)
        total.dropped += all_reduce_sum(self.dropped)
        vectors, labels, keys = (part.to(self.sums.device) for part in self.sampled.rows())
        rows = vectors.double().reshape(len(labels), width)  # one type, also without a feature
        total.sampled.add(gather_rows(rows), gather_rows(labels), gather_rows(keys))
        return total

    def scores(self) -> FeatureScores:
        """The metrics of everything seen so far."""
        counts = self.counts.tolist()
        used = self.counts >= self.config.min_count
        means = self.sums / self.counts.clamp(min=1)[:, None]
        lengths = means.norm(dim=1)
        directed = used & (lengths > NO_DIRECTION)
        centres = means[directed] / lengths[directed, None]
        near = [n for n in self.config.neighbours if n < len(centres)]
        return FeatureScores(
            layer=self.layer,
            width=self.sums.shape[1],
            classes=tuple(self._classes(counts, used.tolist(), lengths.tolist())),
            similarity=_spread_out(centres @ centres.T, directed),
            uniformity=uniformity(centres),
            neighbourhood={n: neighbourhood_uniformity(centres, n) for n in near},
            min_count=self.config.min_count,
            dropped=int(self.dropped),
        )

    def _classes(
        self, counts: list[int], used: list[bool], lengths: list[float]
    ) -> list[ClassFeatures]:
        vectors, labels, _ = self.sampled.rows()
        sizes = labels.bincount(minlength=len(counts)).tolist()
        found = []
        for sample, count, use, length in zip(
            torch.split(vectors, sizes), counts, used, lengths, strict=True
        ):
            if use:
                mean, error = sampled_mean_distance(sample, count)
                found.append(ClassFeatures(count, mean, error, min(length, 1.0)))
            else:
                found.append(ClassFeatures(count))
        return found


class FeatureMeters:
    """A meter for every layer a network offers, made when the first batch shows its width.

    Args:
        num_classes: C.
        config: how features are measured.
        device: where the network is.
    """

    def __init__(
        self, num_classes: int, config: FeatureConfig, device: torch.device | str = "cpu"
    ) -> None:
        self.num_classes = num_classes
        self.config = config
        self.device = device
        self.meters: dict[str, FeatureMeter] = {}

    def update(self, output: SegOutput, target: Tensor, ids: Sequence[str]) -> None:
        """Adds a batch: what a network returned, ground truth (B, H, W) and names."""
        for layer, features in feature_layers(output).items():
            self._meter(layer, features.shape[1]).update(features, target, ids)

    def reduce(self) -> FeatureMeters:
        """What all processes have seen. Every process must call it, also one without images."""
        widths = {layer: meter.sums.shape[1] for layer, meter in self.meters.items()}
        everyone: list[dict[str, int]] = [{}] * world_size()
        dist.all_gather_object(everyone, widths)
        total = FeatureMeters(self.num_classes, self.config, self.device)
        for layer, width in {k: v for part in everyone for k, v in part.items()}.items():
            total.meters[layer] = self._meter(layer, width).reduce()
        return total

    def scores(self) -> tuple[FeatureScores, ...]:
        """The metrics of every layer."""
        return tuple(meter.scores() for meter in self.meters.values())

    def samples(self, most: int) -> dict[str, tuple[Tensor, Tensor]]:
        """For each layer at most `most` features a class: (N, F) and their classes (N,), on CPU."""
        rows = {layer: meter.sampled.rows(most) for layer, meter in self.meters.items()}
        return {layer: (v.cpu(), labels.cpu()) for layer, (v, labels, _) in rows.items()}

    def _meter(self, layer: str, width: int) -> FeatureMeter:
        if layer not in self.meters:
            self.meters[layer] = FeatureMeter(
                layer, self.num_classes, width, self.config, self.device
            )
        return self.meters[layer]


def feature_layers(output: SegOutput) -> Mapping[str, Tensor]:
    """The maps whose separation is measured: what the classifier sees, and the embedding if any."""
    layers = {"classifier input": output.features}
    if output.levels:
        layers |= {f"embedding, level {i}": level for i, level in enumerate(output.levels, 1)}
    elif output.embedding is not None:
        layers["embedding"] = output.embedding
    return layers


def _spread_out(cosines: Tensor, present: Tensor) -> tuple[tuple[float | None, ...], ...]:
    """(P, P) values of the P present classes as rows of all C classes, None for the others."""
    full = cosines.new_full((len(present), len(present)), nan)
    places = present.nonzero().flatten()
    full[places[:, None], places] = cosines.clamp(-1, 1)
    return tuple(tuple(None if value != value else value for value in row) for row in full.tolist())
