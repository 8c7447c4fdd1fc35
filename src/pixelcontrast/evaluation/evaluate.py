"""Scores of a network over a stream of labelled images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor
from torch import distributed as dist

from pixelcontrast.core.distributed import world_size
from pixelcontrast.core.errors import DataError
from pixelcontrast.evaluation.confusion import ConfusionMatrix
from pixelcontrast.evaluation.inference import InferenceConfig, SegModel, predict_labels
from pixelcontrast.evaluation.scores import SegScores


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
class Evaluation:
    """The outcome of an evaluation."""

    scores: SegScores
    images: tuple[ImageScore, ...]

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
        on_image: sees every image of this process once, for pictures.
        across_processes: where torch.distributed runs, all processes call this function, each with
            its own images, and all get the sum. False: each process gets its own.

    Raises:
        DataError: a batch without labels, or a label that is no class.
    """
    total = ConfusionMatrix(num_classes, ignore_index, device)
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
        labels, _ = predict_labels(model, image, config)
        for i, name in enumerate(batch.ids):
            one = ConfusionMatrix(num_classes, ignore_index, device)
            one.update(labels[i], target[i], where=name)
            total.merge(one)
            score = _image_score(name, one.scores())
            images.append(score)
            if on_image is not None:
                on_image(score, image[i], target[i], labels[i])
    if across_processes and world_size() > 1:
        total = total.reduce()
        images = _gathered(images)
    return Evaluation(total.scores(), tuple(images))


def _image_score(name: str, scores: SegScores) -> ImageScore:
    return ImageScore(name, scores.miou_of_present, scores.pixel_accuracy, sum(scores.pixels))


def _gathered(images: list[ImageScore]) -> list[ImageScore]:
    """The images of all processes, by name: the same list whatever the number of processes."""
    parts: list[list[ImageScore] | None] = [None] * world_size()
    dist.all_gather_object(parts, images)
    return sorted((image for part in parts if part for image in part), key=lambda image: image.id)
