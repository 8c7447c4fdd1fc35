"""Scores of a network over a stream of labelled images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import torch
from torch import Tensor
from torch import distributed as dist

from pixelcontrast.core.distributed import world_size
from pixelcontrast.core.errors import ConfigError, DataError
from pixelcontrast.core.types import SegOutput
from pixelcontrast.evaluation.boundary import near_boundary
from pixelcontrast.evaluation.confusion import ConfusionMatrix
from pixelcontrast.evaluation.features import FeatureConfig, FeatureMeters
from pixelcontrast.evaluation.inference import (
    InferenceConfig,
    SegModel,
    one_pass,
    predict_labels,
    resized,
)
from pixelcontrast.evaluation.scores import SegScores, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pixelcontrast.evaluation.clusters import ClusterEvaluation
    from pixelcontrast.evaluation.feature_scores import FeatureScores
    from pixelcontrast.evaluation.instances import InstanceScores

PICTURED, PICTURED_IN_ALL = 120, 1000
"""Most features of each class, and about how many in all, that are handed out for pictures."""


@dataclass(frozen=True, slots=True)
class ImageScore:
    """The scores of one image."""

    id: str
    miou: float | None
    """Mean IoU over the classes of its ground truth; None without labelled pixels."""
    accuracy: float | None
    """Share of its labelled pixels that are right."""
    pixels: int
    """Labelled pixels."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class BoundaryScores:
    """Scores over the pixels near a boundary of the ground truth alone."""

    distance: float
    """tau_B in pixels; see `near_boundary`."""
    scores: SegScores


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The outcome of an evaluation."""

    scores: SegScores
    images: tuple[ImageScore, ...]
    boundary: BoundaryScores | None = None
    features: tuple[FeatureScores, ...] = ()
    """How well the features of each layer separate the classes."""
    instances: InstanceScores | None = None
    """Where the data set has instance maps."""
    samples: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """For each layer some features (N, F) of every class and their classes (N,)."""
    clusters: ClusterEvaluation | None = None
    """Of a network whose outputs are clusters; `scores` are those of one matching."""

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Scores as plain values for JSON, without images.

        Args:
            names: of the C classes.
        """
        edges = self.boundary
        return {
            "scores": self.scores.to_dict(names),
            "boundary": edges and {"distance": edges.distance, **edges.scores.to_dict(names)},
            "features": [layer.to_dict(names) for layer in self.features],
            "instances": self.instances and self.instances.to_dict(),
            "clusters": self.clusters and self.clusters.to_dict(),
        }

    def table(self, names: Sequence[str]) -> str:
        """Everything as plain text.

        Args:
            names: of the C classes.
        """
        lines = [self.clusters.table() if self.clusters else self.scores.table(names)]
        if self.boundary is not None:
            where = f"within {self.boundary.distance:g} pixels of a boundary"
            lines.append(f"mean IoU {where}: {percent(self.boundary.scores.miou)}")
        if self.instances is not None:
            lines += [
                f"mean {name.replace('_', ' ')} (Cityscapes): {percent(value)}"
                for name, value in self.instances.means.items()
            ]
        if self.features:
            lines.append("features (A: lower is better, U: higher is better)")
            lines += [f"  {layer.line()}" for layer in self.features]
        return "\n".join(lines)

    def worst(self, count: int) -> tuple[ImageScore, ...]:
        """The `count` images of lowest mean IoU, worst first."""
        scored = [image for image in self.images if image.miou is not None]
        return tuple(sorted(scored, key=lambda image: (image.miou, image.id))[:count])


class LabelledImages(Protocol):
    """Whole images of equal size with their ground truth, as the evaluation loader yields them."""

    @property
    def image(self) -> Tensor:
        """(B, 3, H, W) uint8 RGB."""

    @property
    def mask(self) -> Tensor | None:
        """(B, H, W) class ids or the ignore index."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the images."""


OnImage: TypeAlias = Callable[[ImageScore, Tensor, Tensor, Tensor], None]
"""Called with score, image (3, H, W), ground truth (H, W) and labels (H, W) of each image."""


@torch.no_grad()
def evaluate(
    model: SegModel,
    batches: Iterable[LabelledImages],
    *,
    num_classes: int,
    ignore_index: int = 255,
    config: InferenceConfig | None = None,
    device: torch.device | str = "cpu",
    boundary: float | None = None,
    features: FeatureConfig | None = None,
    on_image: OnImage | None = None,
    across_processes: bool = True,
) -> Evaluation:
    """Scores `model` on every image of `batches`.

    Args:
        model: see `SegModel`; in evaluation mode.
        batches: labelled batches; padding carries the ignore index.
        num_classes: C.
        ignore_index: label that is left out.
        config: None for one pass over the whole image.
        device: where the model is.
        boundary: also score the pixels within this distance of a boundary; see `near_boundary`.
        features: also measure how well features separate the classes: those of one pass over the
            whole image, at the scale of `config` that is nearest to 1. Costs a further pass only
            where `config` asks for several passes.
        on_image: sees every image of this process once, for pictures.
        across_processes: where torch.distributed runs, all processes call this function, each with
            its own images, and all get the sum. False: each process gets its own.

    Raises:
        DataError: a batch without labels, or a label that is no class.
    """
    total = ConfusionMatrix(num_classes, ignore_index, device)
    edges = ConfusionMatrix(num_classes, ignore_index, device)
    meters = FeatureMeters(num_classes, features or FeatureConfig(), device)
    network = LastOutput(model)
    images: list[ImageScore] = []
    for batch in batches:
        if batch.mask is None:
            raise DataError(
                "an image without a mask cannot be scored",
                where=", ".join(batch.ids),
                fix="evaluate on a split whose images all have masks",
            )
        target = batch.mask.to(device)
        image = batch.image.to(device)
        labels, _ = predict_labels(network, image, config)
        if boundary is not None:
            away = ~near_boundary(batch.mask, boundary).to(device)
            edges.update(labels, target.masked_fill(away, ignore_index))
        if features is not None:
            meters.update(network.features_of(image, config), target, batch.ids)
        for i, name in enumerate(batch.ids):
            one = ConfusionMatrix(num_classes, ignore_index, device)
            one.update(labels[i], target[i], where=name)
            total.merge(one)
            score = _image_score(name, one.scores())
            images.append(score)
            if on_image is not None:
                on_image(score, image[i], target[i], labels[i])
    if across_processes and world_size() > 1:
        total, edges, meters = total.reduce(), edges.reduce(), meters.reduce()
        images = _gathered(images)
    return Evaluation(
        total.scores(),
        tuple(images),
        boundary=None if boundary is None else BoundaryScores(boundary, edges.scores()),
        features=meters.scores(),
        samples=meters.samples(max(1, min(PICTURED, PICTURED_IN_ALL // num_classes))),
    )


class LastOutput:
    """A network that keeps what it returned last, so that features need no pass of their own."""

    def __init__(self, model: SegModel) -> None:
        self.model = model
        self.output: SegOutput | Tensor | None = None

    def __call__(self, image: Tensor) -> SegOutput | Tensor:
        """What the network returns."""
        self.output = self.model(image)
        return self.output

    def features_of(self, image: Tensor, config: InferenceConfig | None) -> SegOutput:
        """What the network returns for the whole image, single scale, not mirrored."""
        config = config or InferenceConfig()
        if not one_pass(config):
            scale = min(config.scales, key=lambda factor: abs(factor - 1))
            self(resized(image, scale))
        if not isinstance(self.output, SegOutput):
            raise ConfigError(
                "this network returns class scores alone, so its features cannot be measured",
                fix="return a SegOutput, or leave `features` out",
            )
        return self.output


def _image_score(name: str, scores: SegScores) -> ImageScore:
    return ImageScore(name, scores.miou_of_present, scores.pixel_accuracy, sum(scores.pixels))


def _gathered(images: list[ImageScore]) -> list[ImageScore]:
    """The images of all processes, by name: the same list whatever the number of processes."""
    parts: list[list[ImageScore] | None] = [None] * world_size()
    dist.all_gather_object(parts, images)
    return sorted((image for part in parts if part for image in part), key=lambda image: image.id)
