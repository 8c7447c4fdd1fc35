"""Instance-weighted scores during an evaluation: reads the instance map of each scored image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pixelcontrast.core.errors import DataError
from pixelcontrast.data import Sample
from pixelcontrast.data.reading import read_stored_mask
from pixelcontrast.evaluation.instances import InstanceMeter, knows_classes, label_ids

if TYPE_CHECKING:
    from torch import Tensor

    from pixelcontrast.evaluation import InstanceScores


class InstanceMaps:
    """Weighs the predictions of one split by instance, where every image has an instance map.

    Args:
        samples: the images of the split.
        names: classes of the network; the weights are those of Cityscapes and need its classes.
    """

    def __init__(self, samples: Sequence[Sample], names: Sequence[str]) -> None:
        maps = {sample.id: sample.instances for sample in samples if sample.instances is not None}
        self.maps = maps if len(maps) == len(samples) and knows_classes(names) else {}
        self.meter = InstanceMeter()

    def consider(self, name: str, truth: Tensor, labels: Tensor) -> None:
        """Add an image: its name, ground truth (H, W) and predicted classes (H, W)."""
        if name not in self.maps:
            return
        path: Path = self.maps[name]
        instances = read_stored_mask(path).values
        if instances.shape != tuple(truth.shape):
            raise DataError(
                f"the instance map has the shape {instances.shape}, the mask {tuple(truth.shape)}",
                where=path,
                fix="use the instance maps that belong to the masks, at full size",
            )
        self.meter.update(
            label_ids(labels.cpu().numpy()), label_ids(truth.cpu().numpy()), instances
        )

    def scores(self) -> InstanceScores | None:
        """The scores; None where the data has no instance maps of Cityscapes."""
        return self.meter.scores() if self.maps else None
